"""The method `text_encoder`, from a run's settings to a LoRA or a checkpoint."""

from __future__ import annotations

from pathlib import Path

from studio.schema.training_tuning import TextEncoderMethod
from studio.training.context import TrainingContext
from studio.training.methods.full.method import train_weights
from studio.training.methods.lora.method import train_adapters


def train_text_encoder(context: TrainingContext) -> Path:
    """Run or resume; returns the finished file or folder."""
    method = context.settings(TextEncoderMethod)
    if method.result == "lora":
        return train_adapters(context, method, unet=False, encoders=True)
    return train_weights(context, method, encoders=True)
