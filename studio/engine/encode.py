"""Pictures to latents, as the U-Net sees them.

Encoding takes the mode of the VAE's distribution; AUTOMATIC1111 draws a sample of it with noise that no seed decides, so its pictures
of a given picture differ slightly.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from torch import Tensor

from studio.engine.decode import MARGIN, mark_format, tile_side, tiling, to_samples
from studio.engine.leaving import between
from studio.engine.loading import LoadedVae
from studio.engine.wrapping import set_wrapping
from studio.errors import EngineError


def encoded(picture: Image.Image | Tensor, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False) -> Tensor:
    """The latents [C, h, w], float32, of a picture or of a sample [3, H, W] in -1..1. See `Decoder` for `tiled` and `wraps`.

    Raises `EngineError` when the VAE gives no numbers, in float32 as well, and what its `ask` raises.
    """
    latent, module = vae.latent, vae.module
    sample = picture if isinstance(picture, Tensor) else to_samples(picture)
    side = tile_side(vae, sample.shape[2], sample.shape[1]) if tiled else None
    # A tile must not wrap around itself: the whole is shown what lies beyond its edges instead, as in decoding.
    margin = min(MARGIN, *(edge // latent.scale for edge in sample.shape[1:])) if side and wraps else 0
    set_wrapping(module, wraps and not margin)
    with vae.stage.of(module), tiling(vae, side) if side else nullcontext():
        sample = sample[None].to(module.device, module.dtype)
        sample = torch.nn.functional.pad(sample, (margin * latent.scale,) * 4, mode="circular") if margin else sample
        with between(vae.ask):
            codes = _codes(module, sample).float()
        if not bool(torch.isfinite(codes).all()) and module.dtype != torch.float32:
            module.to(dtype=torch.float32)  # what gives no numbers for a picture stays in it, also if this is left
            with between(vae.ask):
                codes = _codes(module, sample.float())
        mark_format(vae)
    if not bool(torch.isfinite(codes).all()):
        raise EngineError(
            "The VAE gave no numbers (NaN) for a picture to go on from, in float32 as well. The VAE file may be damaged: choose another one."
        )
    codes = codes[:, margin:-margin, margin:-margin] if margin else codes
    scaled: Tensor = (codes - latent.shift_factor) * latent.scaling_factor
    return scaled


def _codes(module: AutoencoderKL | AutoencoderTiny, sample: Tensor) -> Tensor:
    """What the module makes of one sample [1, 3, H, W]: [C, h, w]. The tiny one has no distribution."""
    encoded = module.encode(sample)
    codes: Tensor = encoded.latents if isinstance(module, AutoencoderTiny) else encoded.latent_dist.mode()
    return codes[0]
