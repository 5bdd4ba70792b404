"""One forward pass of a batch."""

from __future__ import annotations

import torch

from studio.training.context import TrainingContext
from studio.training.tuning.base import Base
from studio.training.tuning.batches import Batch
from studio.training.tuning.objective import Objective


def picture_losses(context: TrainingContext, base: Base, objective: Objective, batch: Batch) -> torch.Tensor:
    """Mean squared error of each picture, weighted by its timestep: float32 [B]."""
    noised = objective.noised(batch.latents, batch.noise, batch.timesteps)
    target = objective.target(batch.latents, batch.noise, batch.timesteps)
    added = base.model.added_conditions(batch.texts.pooled, *batch.size)
    dtype = base.hardware.dtype
    with context.autocast():
        predicted = base.unet(
            noised.to(dtype),
            batch.timesteps,
            batch.texts.joined().to(dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
    error: torch.Tensor = (predicted.float() - target).square().mean(dim=(1, 2, 3))
    return error * objective.weights(batch.timesteps)
