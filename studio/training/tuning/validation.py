"""The loss on pictures that nothing learns from, always at the same noise and timesteps: a curve whose points can be compared.

The loss of a training step depends on the timestep more than on what was learned; this one depends on the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from studio.schema.training_tuning import TuningMethod
from studio.training.context import TrainingContext
from studio.training.counter import generator
from studio.training.data.dataset import Item
from studio.training.data.prepare import caption_for, target_size
from studio.training.tuning.base import Base
from studio.training.tuning.batches import Batch, latents_and_noise
from studio.training.tuning.latents import LatentCache, View
from studio.training.tuning.loss import picture_losses
from studio.training.tuning.objective import Objective
from studio.training.tuning.texts import Texts


@dataclass(frozen=True)
class Validator:
    """Measures; `items` were kept back."""

    context: TrainingContext
    method: TuningMethod
    base: Base
    objective: Objective
    items: tuple[Item, ...]

    def captions(self) -> Iterator[str]:
        """All captions it will ask for."""
        return (self._caption(index) for index in range(len(self.items)))

    def views(self) -> Iterator[View]:
        """All pictures it will ask for."""
        return (View(item, target_size(item.size, self.method.data), False) for item in self.items)

    @torch.no_grad()
    def loss(self, latents: LatentCache, texts: Texts) -> float:
        """Mean over pictures and draws, over all processes; each measures its part of the pictures."""
        total = count = 0.0
        for index in range(len(self.items))[self.context.team.part(len(self.items))]:
            for batch in self._batches(index, latents, texts):
                losses = picture_losses(self.context, self.base, self.objective, batch)
                total, count = total + float(losses.cpu().double().sum()), count + len(losses)
        total, count = self.context.team.total(total, count)
        return total / count

    def _batches(self, index: int, latents: LatentCache, texts: Texts) -> Iterator[Batch]:
        """All draws of one picture, in batches of the run's size; timesteps are spread evenly over the schedule."""
        view = View(self.items[index], target_size(self.items[index].size, self.method.data), False)
        draws = self.method.validation.draws
        size = max(1, self.method.batch // self.context.team.size)
        for start in range(0, draws, size):
            some = range(start, min(start + size, draws))
            pairs = [
                latents_and_noise(
                    latents,
                    view,
                    generator(self.context.config.seed, "tuning/validation", index * draws + draw),
                    self.objective,
                )
                for draw in some
            ]
            timesteps = [int((draw + 0.5) / draws * self.objective.timesteps) for draw in some]
            device = self.context.device
            yield Batch(
                torch.stack([clean for clean, _ in pairs]).to(device),
                torch.stack([noise for _, noise in pairs]).to(device),
                torch.tensor(timesteps, device=device),
                texts.encode([self._caption(index)] * len(timesteps)),
                view.size,
            )

    def _caption(self, index: int) -> str:
        return caption_for(
            self.items[index], self.method.data, generator(self.context.config.seed, "tuning/validation-caption", index)
        )
