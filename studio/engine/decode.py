"""Latents to pictures: VAE decoding, the search for NaN, and the last rounding."""

from __future__ import annotations

import logging

import torch
from PIL import Image
from torch import Tensor

from studio.engine.loading import LoadedVae
from studio.engine.tiling import set_tiling
from studio.errors import EngineError

log = logging.getLogger(__name__)


class Decoder:
    """Decodes one picture at a time: less memory than a batch, and a picture does not depend on its neighbours.

    When the VAE gives NaN or a black picture in a short number format, it is converted to float32, stays so, and the
    picture is decoded once more. With `tiling` the picture's edges meet.
    """

    def __init__(self, vae: LoadedVae, *, tiling: bool = False) -> None:
        self._module = vae.module
        self._latent = vae.latent
        self._tiling = tiling

    def picture(self, latents: Tensor) -> Image.Image:
        """The picture of finished latents [C, h, w]. Raises `EngineError` when even float32 gives no numbers."""
        sample = self._decode(latents)
        if _is_lost(sample) and self._module.dtype != torch.float32:
            log.warning("the VAE gave NaN or black in %s; using float32 from now on", self._module.dtype)
            self._module.to(dtype=torch.float32)
            sample = self._decode(latents)
        if not bool(torch.isfinite(sample).all()):
            raise EngineError(
                "The VAE gave no numbers (NaN) for a finished picture, in float32 as well. The VAE file may be damaged: choose another one."
            )
        return Image.fromarray(to_pixels(sample).numpy())

    def _decode(self, latents: Tensor) -> Tensor:
        set_tiling(self._module, self._tiling)  # between two pictures another decoder may have used the module
        scaled = latents[None] / self._latent.scaling_factor + self._latent.shift_factor
        sample: Tensor = self._module.decode(scaled.to(self._module.dtype)).sample[0]
        return sample.float()


def to_pixels(sample: Tensor) -> Tensor:
    """A decoded sample [3, H, W] in -1..1 to uint8 [H, W, 3] on the CPU.

    255 · value is cut to a whole number, not rounded, as A1111 does; diffusers rounds, so pixels can differ by 1.
    """
    unit = (sample * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu()


def _is_lost(sample: Tensor) -> bool:
    """NaN or infinite anywhere, or black everywhere."""
    return not bool(torch.isfinite(sample).all()) or bool((sample <= -1).all())
