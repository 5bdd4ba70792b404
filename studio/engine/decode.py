"""Latents to pictures: VAE decoding, the search for NaN, and the last rounding."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.engine.loading import LoadedVae
from studio.engine.wrapping import set_wrapping
from studio.errors import EngineError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

MARGIN = 16
"""Latents from beyond an edge that decide what is decoded before it, or, as pixels, what is encoded."""
log = logging.getLogger(__name__)
_turn = threading.Lock()
"""One picture at a time: wrapping, tiles and number format are states of a VAE that two threads may decode with."""


class Decoder:
    """Decodes one picture at a time: less memory than a batch, and a picture does not depend on its neighbours.

    With `tiled` a picture that is larger than what the VAE was trained on is decoded in overlapping tiles that are blended:
    far less memory, but each tile is normalised by itself, so colours may shift slightly.
    When the VAE gives NaN or a black picture in a short number format, it is converted to float32, stays so, and the
    picture is decoded once more. The edges of one that `wraps` meet.
    """

    def __init__(self, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False) -> None:
        self._module = vae.module
        self._stage = vae.stage
        self._latent = vae.latent
        self._tiled = tiled
        self._wraps = wraps

    def picture(self, latents: Tensor) -> Image.Image:
        """The picture of finished latents [C, h, w]. Raises `EngineError` when even float32 gives no numbers."""
        with _turn, self._stage.of(self._module):
            return Image.fromarray(to_pixels(self._numbers(latents)).numpy())

    def _numbers(self, latents: Tensor) -> Tensor:
        sample = self._decode(latents)
        if _is_lost(sample) and self._module.dtype != torch.float32:
            log.warning("the VAE gave NaN or black in %s; using float32 from now on", self._module.dtype)
            self._module.to(dtype=torch.float32)
            sample = self._decode(latents)
        if not bool(torch.isfinite(sample).all()):
            raise EngineError(
                "The VAE gave no numbers (NaN) for a finished picture, in float32 as well. The VAE file may be damaged: choose another one."
            )
        return sample

    def _decode(self, latents: Tensor) -> Tensor:
        if not (self._wraps and self._tiled):
            return self._sample(latents, wraps=self._wraps)
        # A tile must not wrap around itself: the whole is shown what lies beyond its edges instead.
        margin = min(MARGIN, *latents.shape[1:])
        edge = margin * self._latent.scale
        wider = torch.nn.functional.pad(latents[None], (margin,) * 4, mode="circular")[0]
        return self._sample(wider, wraps=False)[:, edge:-edge, edge:-edge]

    def _sample(self, latents: Tensor, *, wraps: bool) -> Tensor:
        set_wrapping(self._module, wraps)  # another decoder may have used the module since
        scaled = latents[None] / self._latent.scaling_factor + self._latent.shift_factor
        with tiling(self._module) if self._tiled else nullcontext():
            sample: Tensor = self._module.decode(scaled.to(self._module.dtype)).sample[0]
        return sample.float()


@contextmanager
def tiling(module: AutoencoderKL | AutoencoderTiny) -> Iterator[None]:
    """While this lasts the autoencoder works in tiles."""
    module.enable_tiling()
    try:
        yield
    finally:
        module.disable_tiling()


def to_pixels(sample: Tensor) -> Tensor:
    """A decoded sample [3, H, W] in -1..1 to uint8 [H, W, 3] on the CPU.

    255 · value is cut to a whole number, not rounded, as A1111 does; diffusers rounds, so pixels can differ by 1.
    """
    unit = (sample * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu()


def to_samples(picture: Image.Image) -> Tensor:
    """The way back: a picture as a sample [3, H, W] in -1..1, float32 on the CPU."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    return pixels.float() / 127.5 - 1


def _is_lost(sample: Tensor) -> bool:
    """NaN or infinite anywhere, or black everywhere."""
    return not bool(torch.isfinite(sample).all()) or bool((sample <= -1).all())
