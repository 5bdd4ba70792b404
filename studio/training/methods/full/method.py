"""The method `full`, from a run's settings to a checkpoint; and the same for the weights of the text encoders."""

from __future__ import annotations

from pathlib import Path

from studio.schema.training_tuning import FullMethod, TextEncoderMethod
from studio.training.context import TrainingContext
from studio.training.methods.full.checkpoint import CheckpointWriter, Origin
from studio.training.tuning.base import Base, load_base
from studio.training.tuning.learner import Group, Learner
from studio.training.tuning.prepare import Learning, open_dataset, open_session
from studio.training.tuning.run import run_session


def train_full(context: TrainingContext) -> Path:
    """Run or resume; returns the finished file or folder."""
    return train_weights(context, context.settings(FullMethod), encoders=False)


def train_weights(context: TrainingContext, method: FullMethod | TextEncoderMethod, *, encoders: bool) -> Path:
    """All weights of the U-Net learn, or all of the text encoders; the result is a new checkpoint."""
    dataset = open_dataset(context, method.data)
    base = load_base(context, method.model, frozen_unet=encoders)
    writer = CheckpointWriter(base, method.layout)

    def build(base: Base) -> Learning:
        base.unet.requires_grad_(not encoders)
        if encoders:
            for encoder in base.model.text_encoders:
                encoder.float().requires_grad_(True)
        names = [encoder.name for encoder in base.model.family.encoders]
        learning = dict(zip(names, base.model.text_encoders, strict=True)) if encoders else {"unet": base.unet}
        parameters = {
            f"{part}.{name}": value for part, module in learning.items() for name, value in module.named_parameters()
        }
        return Learning(
            Learner((base.unet, *base.model.text_encoders) if encoders else (base.unet,), Group(parameters))
        )

    session = open_session(context, method, dataset, base, encoders_learn=encoders, build=build)

    def export(step: int, name: str) -> Path:
        origin = Origin(context.run.id, dataset.digest, step, method.data.resolution, method.output.number_format)
        return writer.write(session.learner.state_dict(), origin, context.paths.checkpoints, name)

    return run_session(session, export)
