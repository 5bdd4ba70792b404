"""Stable Diffusion 2.x: OpenCLIP-H of which the last layer is left out, 1024-wide text states, 768 pixels (base models 512).

The 768-pixel models predict v, the 512-pixel base models noise; the keys of a file are the same for both.
"""

from __future__ import annotations

from studio.families.spec import EncoderSpec, FamilySpec, shipped_preview


def spec() -> FamilySpec:
    """The row of the family table."""
    encoder = EncoderSpec(
        name="text_encoder",
        layout="open_clip",
        prefixes=("cond_stage_model.model.",),
        layer="clip_skip",
        pad_token_id=0,
        unused_layers=1,
    )
    return FamilySpec(
        name="sd2",
        title="Stable Diffusion 2.x",
        native_size=768,
        context=1024,
        heads=None,
        prediction_type="v_prediction",
        encoders=(encoder,),
        preview=shipped_preview("sd1"),
    )
