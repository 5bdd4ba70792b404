"""Training methods by the ``kind`` of their configuration."""

from __future__ import annotations

from pathlib import Path

from studio.errors import UnknownName
from studio.training.context import TrainingContext


def run_method(context: TrainingContext) -> Path:
    """Run or resume the configured method; returns the folder or file that it made."""
    kind = context.config.method.kind
    if kind == "scratch":
        from studio.training.methods.scratch.method import train_from_scratch

        return train_from_scratch(context)
    if kind == "judge":
        from studio.training.methods.judge.method import train_judge

        return train_judge(context)
    if kind == "clip":
        from studio.training.methods.contrastive.method import train_clip

        return train_clip(context)
    if kind == "lora":
        from studio.training.methods.lora.method import train_lora

        return train_lora(context)
    if kind == "text_encoder":
        from studio.training.methods.text_encoder.method import train_text_encoder

        return train_text_encoder(context)
    if kind == "full":
        from studio.training.methods.full.method import train_full

        return train_full(context)
    raise UnknownName.of("training method", kind, ["clip", "full", "judge", "lora", "scratch", "text_encoder"])
