"""The refiner of Stable Diffusion XL: OpenCLIP-bigG alone, 1280-wide text states, pooled text, size ids and an aesthetic score.

It was trained on the last fifth of the noise levels and finishes what a base model began: it shares the latent space.
Podell et al., SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, 2023, section 2.5; the scores
are those of Stability AI's generative-models.
"""

from __future__ import annotations

from studio.families.spec import EncoderSpec, FamilySpec, shipped_preview


def spec() -> FamilySpec:
    """The row of the family table."""
    encoder = EncoderSpec(
        name="text_encoder_2",
        layout="open_clip",
        prefixes=("conditioner.embedders.0.model.",),
        layer="penultimate",
        pad_token_id=0,
        pooled=True,
    )
    return FamilySpec(
        name="sdxl_refiner",
        title="Stable Diffusion XL refiner",
        native_size=1024,
        context=1280,
        heads=None,
        prediction_type="epsilon",
        encoders=(encoder,),
        preview=shipped_preview("sdxl"),
        zero_empty_negative=True,
        size_conditioning=True,
        aesthetic_scores=(6.0, 2.5),
        latent_space="sdxl",
    )
