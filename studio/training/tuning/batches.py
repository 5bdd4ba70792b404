"""Which pictures a step sees, and everything that is drawn for them: functions of (seed, position) alone.

Positions count pictures over the whole run. A batch holds pictures of one size; an epoch shows every picture as often as it repeats, and the
last batch of a size is filled up from the front of its own order.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from studio.engine.text_encoders import TextStates
from studio.schema.training_data import DatasetSettings
from studio.schema.training_tuning import TuningMethod
from studio.training.counter import generator
from studio.training.data.dataset import Dataset, Item
from studio.training.data.prepare import caption_for, target_size
from studio.training.tuning.latents import LatentCache, View
from studio.training.tuning.objective import Objective
from studio.training.tuning.texts import Texts


@dataclass(frozen=True)
class Batch:
    """One forward pass: latents and noise [B, C, h, w], timesteps [B], texts, and the pictures' size in pixels (width, height)."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    texts: TextStates
    size: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """The pictures to learn from, and those that are kept back for validation."""

    train: tuple[Item, ...]
    held: tuple[Item, ...]


def split(dataset: Dataset, share: float, seed: int) -> Split:
    """Keep back `share` of the pictures, at least one; none when there is only one or the share is 0. Chosen by a hash of the content."""
    if not share or len(dataset.items) < 2:
        return Split(dataset.items, ())
    order = sorted(dataset.items, key=lambda item: hashlib.sha256(f"{seed}|{item.key}|{item.name}".encode()).digest())
    held = {id(item) for item in order[: max(1, round(share * len(order)))]}
    return Split(
        tuple(item for item in dataset.items if id(item) not in held),
        tuple(item for item in dataset.items if id(item) in held),
    )


class Order:
    """The endless order of pictures."""

    def __init__(self, items: Sequence[Item], data: DatasetSettings, batch: int, seed: int) -> None:
        self.items = items
        self._seed = seed
        self._batch = batch
        buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            buckets[target_size(item.size, data)] += [index] * item.repeats
        self._buckets = [buckets[size] for size in sorted(buckets)]
        self.batches_per_epoch = sum(-(-len(bucket) // batch) for bucket in self._buckets)
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def batch(self, number: int) -> list[int]:
        """Indices of the items of batch `number`, counted from 0 over the whole run."""
        return self._epoch(number // self.batches_per_epoch)[number % self.batches_per_epoch]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        rng = generator(self._seed, "tuning/order", epoch)
        batches: list[list[int]] = []
        for bucket in self._buckets:
            order = [bucket[int(place)] for place in rng.permutation(len(bucket))]
            padded = [order[place % len(order)] for place in range(-(-len(order) // self._batch) * self._batch)]
            batches += [padded[start : start + self._batch] for start in range(0, len(padded), self._batch)]
        return [batches[int(place)] for place in rng.permutation(len(batches))]


class BatchMaker:
    """Makes batches; `part` picks this process's share of each."""

    def __init__(
        self, method: TuningMethod, seed: int, order: Order, objective: Objective, device: torch.device
    ) -> None:
        self._method = method
        self._seed = seed
        self._order = order
        self._objective = objective
        self._device = device

    def captions(self, batches: range) -> Iterator[str]:
        """All captions of these batches."""
        for number in batches:
            for offset, index in enumerate(self._order.batch(number)):
                yield self._caption(self._order.items[index], number * self._method.batch + offset)

    def views(self) -> Iterator[View]:
        """All ways in which pictures may be asked for."""
        for item in self._order.items:
            for flipped in (False, True) if self._method.data.flip else (False,):
                yield View(item, target_size(item.size, self._method.data), flipped)

    def make(self, number: int, part: slice, latents: LatentCache, texts: Texts) -> Batch:
        """Batch `number` of the run."""
        rows = list(enumerate(self._order.batch(number)))[part]
        items = [self._order.items[index] for _, index in rows]
        positions = [number * self._method.batch + offset for offset, _ in rows]
        drawn = [self._draw(item, position, latents) for item, position in zip(items, positions, strict=True)]
        captions = [self._caption(item, position) for item, position in zip(items, positions, strict=True)]
        clean, noise, timesteps = zip(*drawn, strict=True)
        return Batch(
            torch.stack(clean).to(self._device),
            torch.stack(noise).to(self._device),
            torch.tensor(timesteps, device=self._device),
            texts.encode(captions),
            target_size(items[0].size, self._method.data),
        )

    def _caption(self, item: Item, position: int) -> str:
        return caption_for(item, self._method.data, generator(self._seed, "tuning/caption", position))

    def _draw(self, item: Item, position: int, cache: LatentCache) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Clean latents, noise and timestep of one picture at one position."""
        rng = generator(self._seed, "tuning/sample", position)
        flipped = bool(rng.random() < 0.5) and self._method.data.flip
        timestep = self._objective.draw(rng)
        clean, noise = latents_and_noise(
            cache, View(item, target_size(item.size, self._method.data), flipped), rng, self._objective
        )
        return clean, noise, timestep


def latents_and_noise(
    cache: LatentCache, view: View, rng: np.random.Generator, objective: Objective
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both [C, h, w], the noise with its offset."""
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    clean = cache.latents(view, torch_rng)
    noise = torch.randn(clean.shape, generator=torch_rng)
    return clean, objective.offset(noise, torch.randn(len(clean), 1, 1, generator=torch_rng))
