"""A picture in overlapping tiles, and the way back: for models that take a small picture at a time. Sizes are (width, height) in pixels.

Where they lie says `studio.upscalers.tile_starts`. They are put together as A1111 does it, to the pixel: over the overlap a tile comes in linearly from its left (upper) edge,
with shares that are whole numbers of 255, and each join is rounded to 8 bits.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from studio.upscalers import tile_starts

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two outside."""


class Patchwork:
    """The tiles of a picture, in reading order, and what is put together of their successors, RGB.

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
        self._row = Image.new("RGB", (size[0] * times, self._tile[1] * times))
        self._done = 0
        self.picture = Image.new("RGB", (size[0] * times, size[1] * times))
        """The whole, as far as it has come."""

    @property
    def boxes(self) -> list[Box]:
        """Where each tile lies in the picture."""
        width, height = self._tile
        return [(left, top, left + width, top + height) for top in self._down for left in self._across]

    def add(self, tile: Image.Image) -> None:
        """Put in what the next tile has become, `times` as large."""
        row, column = divmod(self._done, len(self._across))
        self._done += 1
        left, top = self._across[column] * self._times, self._down[row] * self._times
        self._row.paste(tile, (left, 0), _coming_in(tile.size, self._overlap if column else 0, across=True))
        if column + 1 == len(self._across):
            self.picture.paste(
                self._row, (0, top), _coming_in(self._row.size, self._overlap if row else 0, across=False)
            )


def _coming_in(size: Size, overlap: int, *, across: bool) -> Image.Image | None:
    """How much of a tile of `size` there is at each pixel, of 255: from none on over the first `overlap` pixels, then all of it. None is all of it everywhere."""
    if not overlap:
        return None
    shares = np.full(size[0] if across else size[1], 255, np.uint8)
    shares[:overlap] = np.arange(overlap, dtype=np.float32)[: len(shares)] * 255 / overlap
    whole = np.broadcast_to(shares if across else shares[:, None], (size[1], size[0]))
    return Image.fromarray(np.ascontiguousarray(whole))
