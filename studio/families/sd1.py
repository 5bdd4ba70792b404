"""Stable Diffusion 1.x: CLIP-L text encoder, 768-wide text states, 8 attention heads, noise prediction, 512 pixels."""

from __future__ import annotations

from studio.families.spec import EncoderSpec, FamilySpec, shipped_preview

END_OF_TEXT = 49407


def spec() -> FamilySpec:
    """The row of the family table."""
    encoder = EncoderSpec(
        name="text_encoder",
        layout="clip",
        prefixes=("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),
        layer="clip_skip",
        pad_token_id=END_OF_TEXT,
    )
    return FamilySpec(
        name="sd1",
        title="Stable Diffusion 1.x",
        native_size=512,
        context=768,
        heads=8,
        prediction_type="epsilon",
        encoders=(encoder,),
        preview=shipped_preview("sd1"),
    )
