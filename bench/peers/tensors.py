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


def probe_added(unet: Any, side: int, rows: int = 2) -> dict[str, Tensor] | None:
    """What SDXL's U-Net is told besides, in its format and on its device: pooled texts [rows, P], and (H, W, top, left, H, W) of `side` pixels."""
    config = unet.config
    if config.addition_embed_type != "text_time":
        return None
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    pooled = torch.randn(1, width, generator=torch.Generator().manual_seed(1)).expand(rows, -1)
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).expand(rows, -1)
    return {"text_embeds": pooled.to(unet.device, unet.dtype), "time_ids": sizes.to(unet.device)}


def as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """float32 on the CPU."""
    return tensor.detach().float().cpu().contiguous().numpy()
