"""The autoencoder's latents of every picture, made once and kept by content: `outputs/.studio/training/latents`.

A file's name is a hash of the picture's bytes, the checkpoint and the size, so that nothing is ever stale: another run of the same
pictures finds them, and a changed picture is encoded anew. The folder may be deleted while nothing trains; what is used longest ago is pruned (`caches.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from studio.errors import TrainingError
from studio.paths import atomic_write
from studio.training.caches import looking, touch
from studio.training.context import TrainingContext
from studio.training.data.dataset import Item
from studio.training.data.prepare import fitted
from studio.training.tuning.base import Base

STAGE = "latents"
_FORMAT = "1"


@dataclass(frozen=True)
class View:
    """A picture at one size, as it is or mirrored. `size` is (width, height) in pixels."""

    item: Item
    size: tuple[int, int]
    flipped: bool


class LatentCache:
    """Latents on disk; read when they are needed, so that memory does not grow with the data set."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity

    def fill(self, context: TrainingContext, base: Base, views: Iterable[View]) -> None:
        """Encode what is missing or cannot be read, with progress as a stage of the run."""
        with looking(self._folder.parent):
            missing = [view for view in dict.fromkeys(views) if not self._sound(self._file(view))]
        if not missing:
            return
        clock = context.stage(STAGE, 0, len(missing))
        for count, view in enumerate(missing, 1):
            mean, deviation = encode(base, view)
            tensors = {"mean": mean.half(), "deviation": deviation.half()}
            atomic_write(self._file(view), save(tensors))
            clock.tick(count)

    def latents(self, view: View, noise: torch.Generator) -> torch.Tensor:
        """A draw from the autoencoder's distribution, scaled as the U-Net sees it: float32 [C, h, w] on the CPU."""
        tensors = load_file(self._file(view))
        mean, deviation = tensors["mean"].float(), tensors["deviation"].float()
        return mean + deviation * torch.randn(mean.shape, generator=noise)

    def _file(self, view: View) -> Path:
        width, height = view.size
        facts = f"{_FORMAT}|{self._identity}|{view.item.key}|{width}x{height}|{view.flipped}"
        name = hashlib.sha256(facts.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    @staticmethod
    def _sound(file: Path) -> bool:
        try:
            tensors = load_file(file) if touch(file) else {}
        except (OSError, SafetensorError):
            return False
        return tensors.keys() == {"mean", "deviation"}


@torch.no_grad()
def encode(base: Base, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the scaled latents, float32 [C, h, w] on the CPU. Raises `TrainingError` naming a picture that gives no numbers."""
    vae, latent = base.model.vae, base.model.latent
    pixels = torch.from_numpy(np.ascontiguousarray(fitted(view.item.picture(), *view.size, flipped=view.flipped)))
    found = vae.encode(pixels[None].to(vae.device, vae.dtype)).latent_dist
    mean = (found.mean[0].float() - latent.shift_factor) * latent.scaling_factor
    deviation = found.std[0].float() * latent.scaling_factor
    if not bool(torch.isfinite(mean).all() and torch.isfinite(deviation).all()):
        raise TrainingError(f"The autoencoder gives no numbers (NaN) for {view.item.name}.")
    return mean.cpu(), deviation.cpu()
