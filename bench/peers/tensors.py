"""Inputs that all contenders share. torch and numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

PROBE_TIMESTEP = 500.0


def start_noise(seeds: Sequence[int], channels: int, side: int) -> Tensor:
    """Start noise [B, channels, side, side] of unit variance, float32: one generator for each picture, as the program draws it."""
    shape = (1, channels, side, side)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def probe(channels: int, side: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """What one forward pass of the U-Net is compared on: latents [2, channels, side, side], timesteps [2], text states [2, 77, width]."""
    drawn = torch.Generator().manual_seed(0)
    latents = torch.randn(2, channels, side, side, generator=drawn)
    return latents, torch.full((2,), PROBE_TIMESTEP), torch.randn(2, 77, width, generator=drawn)


def as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """float32 on the CPU."""
    return tensor.detach().float().cpu().contiguous().numpy()
