"""Drawings made a little worse, as painted pictures are: shifted, wobbly, soft, blotchy, too dark or too pale.

A classifier of clean drawings judges such pictures unfairly: it would take a soft outline for another object. Nothing here changes what a
picture shows, in particular no mirroring (left stays left) and no change of hue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional


@dataclass(frozen=True)
class Strength:
    """The largest of each change: lengths as fractions of the side, tones of the range 0 to 1."""

    zoom: float
    shift: float
    wobble: float
    fine_blur: float
    coarse_blur: float
    noise: float
    contrast: float
    brightness: float


TRAINING = Strength(
    zoom=0.06, shift=0.04, wobble=0.02, fine_blur=1.0, coarse_blur=0.5, noise=0.06, contrast=0.12, brightness=0.06
)
"""What the judge learns on."""

PAINTED = Strength(
    zoom=0.0, shift=0.0, wobble=0.01, fine_blur=0.8, coarse_blur=0.2, noise=0.03, contrast=0.06, brightness=0.03
)
"""Drawings that look as if a good model had painted them, to test the judge on."""

_WOBBLE_CELLS = 6


def worsen(pictures: torch.Tensor, rng: torch.Generator, strength: Strength) -> torch.Tensor:
    """Changed copies of ``pictures`` (n, 3, side, side), values in [-1, 1], each by its own random amounts below ``strength``."""
    changed = _soften(_warp(pictures, rng, strength), rng, strength)
    noise = torch.randn(len(changed), 3, changed.shape[2] // 2, changed.shape[3] // 2, generator=rng)
    noise *= _up_to(2 * strength.noise, changed, rng)
    contrast = 1 + _either(strength.contrast, changed, rng)
    brightness = _either(2 * strength.brightness, changed, rng)
    noise = functional.interpolate(noise.to(changed) + brightness, scale_factor=2, mode="bilinear")
    return torch.addcmul(noise, changed, contrast).clamp_(-1, 1)


def half_worsened(pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """``pictures`` as the judge learns on them: every other one worsened. Bending and softening wipe out what pixel art is known by,
    so that nobody could learn it from worsened pictures alone."""
    changed = pictures.clone()
    changed[::2] = worsen(pictures[::2], rng, TRAINING)
    return changed


def _warp(pictures: torch.Tensor, rng: torch.Generator, strength: Strength) -> torch.Tensor:
    """Zoom, shift and a smooth random displacement, in one resampling."""
    count, side = len(pictures), pictures.shape[2]
    zoom = 1 + _either(strength.zoom, pictures, rng)
    shift = torch.rand(count, 2, 1, 1, generator=rng).sub(0.5).mul(4 * strength.shift).to(pictures)
    wobble = torch.randn(count, 2, _WOBBLE_CELLS, _WOBBLE_CELLS, generator=rng).mul(strength.wobble).to(pictures)
    wobble = functional.interpolate(wobble, size=(side, side), mode="bilinear")
    line = (torch.arange(side, device=pictures.device) + 0.5) * (2 / side) - 1
    identity = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])
    grid = (identity * zoom + (shift + wobble)).permute(0, 2, 3, 1)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _soften(pictures: torch.Tensor, rng: torch.Generator, strength: Strength) -> torch.Tensor:
    """Part of each picture replaced by what is left of it at half and at a quarter of its size."""
    half = functional.avg_pool2d(pictures, 2)
    quarter = functional.avg_pool2d(half, 2)
    half = torch.lerp(
        half, functional.interpolate(quarter, scale_factor=2, mode="bilinear"), _up_to(strength.coarse_blur, half, rng)
    )
    smooth = functional.interpolate(half, scale_factor=2, mode="bilinear")
    return torch.lerp(pictures, smooth, _up_to(strength.fine_blur, pictures, rng))


def _up_to(most: float, like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """(n, 1, 1, 1) amounts, uniform from 0 to ``most``."""
    return torch.rand(len(like), 1, 1, 1, generator=rng).mul(most).to(like)


def _either(most: float, like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """(n, 1, 1, 1) amounts, uniform from ``-most`` to ``most``."""
    return torch.rand(len(like), 1, 1, 1, generator=rng).sub(0.5).mul(2 * most).to(like)
