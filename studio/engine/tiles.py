"""A picture in overlapping tiles, and the way back: for models that take a small picture at a time. Sizes are (width, height) in pixels.

Where they lie says `studio.upscalers.tile_starts`. As in A1111, over the overlap a tile goes linearly from what was there before, at its left (upper) edge, to its own pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.upscalers import tile_starts

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two outside."""
Values = npt.NDArray[np.float32]
"""Pixels [h, w, 3], 0 to 255."""


class Patchwork:
    """The tiles of a picture, in reading order, and what is put together of their successors.

    Args:
        size: of the picture.
        tile: of a tile; cut to the picture.
        overlap: pixels that neighbours share at least.
        times: how much larger what is put in is.
    """

    def __init__(self, size: Size, tile: Size, overlap: int, times: int = 1) -> None:
        self._tile = min(tile[0], size[0]), min(tile[1], size[1])
        self._times, self._overlap = times, overlap * times
        self._across, self._down = (tile_starts(size[i], self._tile[i], overlap) for i in (0, 1))
        self._whole = np.zeros((size[1] * times, size[0] * times, 3), np.uint8)
        self._row = np.zeros((self._tile[1] * times, size[0] * times, 3), np.float32)
        self._done = 0

    @property
    def boxes(self) -> list[Box]:
        """Where each tile lies in the picture."""
        width, height = self._tile
        return [(left, top, left + width, top + height) for top in self._down for left in self._across]

    def add(self, tile: Values) -> None:
        """Put in what the next tile has become, `times` as large."""
        row, column = divmod(self._done, len(self._across))
        self._done += 1
        left = self._across[column] * self._times
        part = self._row[:, left : left + tile.shape[1]]
        _laid_over(part, tile, self._overlap if column else 0, axis=1)
        if column + 1 == len(self._across):
            top = self._down[row] * self._times
            strip = self._whole[top : top + len(self._row)].astype(np.float32)
            _laid_over(strip, self._row, self._overlap if row else 0, axis=0)
            self._whole[top : top + len(self._row)] = np.rint(strip).clip(0, 255)

    @property
    def picture(self) -> Image.Image:
        """The whole, as far as it has come."""
        return Image.fromarray(self._whole)


def pixel_values(picture: Image.Image) -> Values:
    """A picture to be put in."""
    return np.asarray(picture.convert("RGB"), np.float32)


def _laid_over(below: Values, above: Values, overlap: int, axis: int) -> None:
    """Write `above` over `below`; along `axis` its first `overlap` pixels come in linearly, from nothing on."""
    shape = [1, 1, 1]
    shape[axis] = overlap
    ramp = (np.arange(overlap, dtype=np.float32) / max(overlap, 1)).reshape(shape)
    soft = tuple(slice(0, overlap) if i == axis else slice(None) for i in range(3))
    hard = tuple(slice(overlap, None) if i == axis else slice(None) for i in range(3))
    below[soft] += (above[soft] - below[soft]) * ramp
    below[hard] = above[hard]
