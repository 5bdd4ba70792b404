"""Latents to pictures: VAE decoding, the search for NaN, and the last rounding."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.engine.leaving import between
from studio.engine.loading import LoadedVae
from studio.engine.wrapping import set_wrapping
from studio.errors import EngineError

MARGIN = 16
"""Latents from beyond an edge that decide what is decoded before it, or, as pixels, what is encoded."""
SMALLEST_TILE = 256
"""Pixels: below the size that a VAE was trained on tiles are made down to this."""
TILED, FLOAT32 = "tiled VAE", "float32 VAE"
"""Marks of `LoadedVae`."""
log = logging.getLogger(__name__)
_turn = threading.Lock()
"""One picture at a time: wrapping, tiles and number format are states of a VAE that two threads may decode with."""


class NotAlone(Exception):
    """A VAE gave no picture in its short number format, and may not be converted because another thread uses the device."""


class Decoder:
    """Decodes one picture at a time: less memory than a batch, and a picture does not depend on its neighbours.

    With `tiled` a picture is decoded in overlapping tiles that are blended, see `tile_side`: far less memory, but each tile is
    normalised by itself, so colours may shift slightly.
    When the VAE gives NaN or a black picture in a short number format, the picture is decoded once more in float32, and the VAE stays in it
    unless black is what was painted; not if it is to work `beside` another thread: then `NotAlone` is raised. The edges of a picture that
    `wraps` meet. `beside` decodes to the end; else the VAE's `ask` may raise `Left` between two operations.
    """

    def __init__(self, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False, beside: bool = False) -> None:
        self._vae = vae
        self._module = vae.module
        self._tiled = tiled
        self._wraps = wraps
        self._beside = beside
        self._ask = None if beside else vae.ask

    def picture(self, latents: Tensor) -> Image.Image:
        """The picture of finished latents [C, h, w]. Raises `EngineError` when even float32 gives no numbers, and `Left`."""
        with _turn, self._vae.stage.of(self._module):
            return Image.fromarray(to_pixels(self._numbers(latents)).numpy())

    def _numbers(self, latents: Tensor) -> Tensor:
        sample, short = self._decode(latents), self._module.dtype
        if _is_lost(sample) and short != torch.float32:
            if self._beside:
                raise NotAlone
            self._module.to(dtype=torch.float32)
            try:
                sample = self._decode(latents)
            except BaseException:  # it may be black that was painted, for which the VAE does not stay in float32
                self._module.to(dtype=short)
                raise
            if _is_black(sample):
                self._module.to(dtype=short)
            else:
                log.warning("the VAE gave NaN or black in %s; using float32 from now on", short)
        mark_format(self._vae)
        if not bool(torch.isfinite(sample).all()):
            raise EngineError(
                "The VAE gave no numbers (NaN) for a finished picture, in float32 as well. The VAE file may be damaged: choose another one."
            )
        return sample

    def _decode(self, latents: Tensor) -> Tensor:
        height, width = (size * self._vae.latent.scale for size in latents.shape[1:])
        side = tile_side(self._vae, width, height) if self._tiled else None
        if side is None:
            return self._sample(latents, wraps=self._wraps)
        with tiling(self._vae, side):
            return self._in_tiles(latents)

    def _in_tiles(self, latents: Tensor) -> Tensor:
        if not self._wraps:
            return self._sample(latents, wraps=False)
        # A tile must not wrap around itself: the whole is shown what lies beyond its edges instead.
        margin = min(MARGIN, *latents.shape[1:])
        edge = margin * self._vae.latent.scale
        wider = torch.nn.functional.pad(latents[None], (margin,) * 4, mode="circular")[0]
        return self._sample(wider, wraps=False)[:, edge:-edge, edge:-edge]

    def _sample(self, latents: Tensor, *, wraps: bool) -> Tensor:
        set_wrapping(self._module, wraps)  # another decoder may have used the module since
        scaled = latents[None] / self._vae.latent.scaling_factor + self._vae.latent.shift_factor
        with between(self._ask):
            sample: Tensor = self._module.decode(scaled.to(self._module.dtype)).sample[0]
        return sample.float()


def tile_side(vae: LoadedVae, width: int, height: int) -> int | None:
    """Pixels of a tile's sides for a picture of so many; None where a single tile would be all of it.

    It is what the VAE was trained on, which changes a picture least. For one that is hardly larger that would spare hardly any memory: there it
    is half of that, `SMALLEST_TILE` at least.
    """
    own, longer = int(vae.module.tile_sample_min_size), max(width, height)
    side = own if 2 * longer >= 3 * own or own < 2 * SMALLEST_TILE else own // 2
    return side if side < longer else None


def mark_format(vae: LoadedVae) -> None:
    """Mark it where it works in float32 and should in another format."""
    if vae.module.dtype == torch.float32 != vae.dtype:
        vae.marks.add(FLOAT32)


@contextmanager
def tiling(vae: LoadedVae, side: int) -> Iterator[None]:
    """While this lasts the autoencoder works in tiles of so many pixels, and it is marked."""
    module, own = vae.module, vae.module.tile_sample_min_size
    vae.marks.add(TILED)
    _set_tile(vae, side)
    module.enable_tiling()
    try:
        yield
    finally:
        module.disable_tiling()
        _set_tile(vae, own)


def _set_tile(vae: LoadedVae, side: int) -> None:
    vae.module.tile_sample_min_size = side
    vae.module.tile_latent_min_size = side // vae.latent.scale


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
    return not bool(torch.isfinite(sample).all()) or _is_black(sample)


def _is_black(sample: Tensor) -> bool:
    return bool((sample <= -1).all())
