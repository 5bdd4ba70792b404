"""Small changes to training pictures, so that a generated picture is not judged by its pixels being a drawing's: shape, sharpness, tone, grain.

Nothing here changes what a caption says: no mirroring (left and right), no strong hues (ten colours must be told apart), little scaling (sizes).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional

SCALE, SHIFT = 0.08, 0.06
"""Largest relative change of size, and largest shift as a fraction of the picture's side."""
WARP, WARP_CELLS = 0.015, 4
"""Deviation, in sides, of the displacements of a coarse grid that bends outlines."""
SHARPEN, BLUR = 0.3, 1.0
"""How far sharpness is moved: from this share of the fine detail more to all of it gone."""
BRIGHTNESS, CONTRAST, SATURATION = 0.08, 0.12, 0.15
GRAIN = 0.03
"""Deviation of the deviations that noise is drawn with; pixel values span 2."""


def augment(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Changed copies of ``pictures`` (n, 3, side, side) in [-1, 1], each in its own way; all draws come from ``rng``."""
    source = torch.Generator().manual_seed(int(rng.integers(2**62)))
    changed = _tone(_sharpness(_bend(pictures, source), source), source)
    deviation = GRAIN * torch.randn(len(pictures), 1, 1, 1, generator=source).abs()
    return (changed + deviation * torch.randn(pictures.shape, generator=source)).clamp(-1, 1)


def _bend(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Scaled, shifted and slightly warped; what comes in from outside repeats the border."""
    count, _, height, width = pictures.shape
    centre = torch.eye(2, 3).expand(count, 2, 3) * (1 + SCALE * _uniform((count, 1, 1), source))
    shift = 2 * SHIFT * _uniform((count, 2), source)  # grid_sample's picture spans 2
    grid = functional.affine_grid(centre, [count, 3, height, width], align_corners=False) + shift[:, None, None]
    bumps = 2 * WARP * torch.randn(count, 2, WARP_CELLS, WARP_CELLS, generator=source)
    bumps = functional.interpolate(bumps, size=(height, width), mode="bicubic", align_corners=False)
    grid = grid + bumps.permute(0, 2, 3, 1)
    bent: torch.Tensor = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return bent


def _sharpness(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Between a little sharpened and blurred by two 3x3 boxes, which is nearly a Gaussian of 1.15 pixels."""
    blurred = pictures
    for _ in range(2):
        blurred = functional.avg_pool2d(blurred, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(len(pictures), 1, 1, 1, generator=source) * (SHARPEN + BLUR) - SHARPEN
    return pictures.lerp(blurred, share)


def _tone(pictures: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Brightness, contrast about the picture's mean, and saturation about each pixel's."""
    brightness, contrast, saturation = _uniform((3, len(pictures), 1, 1, 1), source).unbind()
    gray = pictures.mean(dim=1, keepdim=True)
    coloured = gray + (pictures - gray) * (1 + SATURATION * saturation)
    mean = coloured.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (coloured - mean) * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness


def _uniform(shape: tuple[int, ...], source: torch.Generator) -> torch.Tensor:
    """Between -1 and 1."""
    return torch.rand(shape, generator=source) * 2 - 1
