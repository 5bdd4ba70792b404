"""Stable Diffusion XL: CLIP-L and OpenCLIP-bigG side by side, 2048-wide text states, pooled text and size ids, 1024 pixels.

Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, 2023, section 2.
"""

from __future__ import annotations

from studio.families.sd1 import END_OF_TEXT
from studio.families.spec import EncoderSpec, FamilySpec, shipped_preview


def spec() -> FamilySpec:
    """The row of the family table."""
    first = EncoderSpec(
        name="text_encoder",
        layout="clip",
        prefixes=("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.0.transformer."),
        layer="penultimate",
        pad_token_id=END_OF_TEXT,
    )
    second = EncoderSpec(
        name="text_encoder_2",
        layout="open_clip",
        prefixes=("conditioner.embedders.1.model.",),
        layer="penultimate",
        pad_token_id=0,
        pooled=True,
    )
    return FamilySpec(
        name="sdxl",
        title="Stable Diffusion XL",
        native_size=1024,
        context=2048,
        heads=None,
        prediction_type="epsilon",
        encoders=(first, second),
        preview=shipped_preview("sdxl"),
        zero_empty_negative=True,
        size_conditioning=True,
        latent_space="sdxl",
    )
