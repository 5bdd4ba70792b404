"""Cutting a picture into tiles and putting it together again, against the rules written out pixel by pixel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from studio.engine.tiles import Patchwork
from studio.upscalers import tile_starts

Pixels = npt.NDArray[np.uint8]


@pytest.mark.parametrize(
    "length, tile, overlap, expected",
    [
        (64, 64, 16, [0]),
        (40, 64, 16, [0]),
        (65, 64, 16, [0, 1]),
        (112, 64, 16, [0, 48]),
        (113, 64, 16, [0, 24, 49]),
        (128, 64, 0, [0, 64]),
        (1024, 512, 64, [0, 256, 512]),
        (1000, 192, 8, [0, 161, 323, 484, 646, 808]),
    ],
)
def test_tiles_are_few_and_spread_evenly(length: int, tile: int, overlap: int, expected: list[int]) -> None:
    assert tile_starts(length, tile, overlap) == expected
    assert all(after - before <= tile - overlap for before, after in pairwise(expected))


def noise(width: int, height: int, seed: int = 1) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("size", [(50, 30), (200, 70), (64, 64), (65, 129), (9, 200)])
@pytest.mark.parametrize("overlap", [0, 16])
def test_an_unchanged_picture_comes_back(size: tuple[int, int], overlap: int) -> None:
    picture = noise(*size)
    pieces = Patchwork(size, (64, 48), overlap)
    for box in pieces.boxes:
        pieces.add(picture.crop(box))
    assert np.array_equal(np.asarray(pieces.picture), np.asarray(picture))


def by_hand(tiles: list[list[Pixels]], left: list[int], top: list[int], overlap: int, size: tuple[int, int]) -> Pixels:
    """Every pixel: along its row from tile to tile, then from row to row; a tile's share of 255 grows by 255 / overlap from its edge."""

    def joined(old: int, new: int, place: int, start: int, first: bool) -> int:
        share = 255 if first or place - start >= overlap else (place - start) * 255 // overlap
        return (new * share + old * (255 - share) + 127) // 255

    whole = np.zeros((size[1], size[0], 3), np.uint8)
    for y, x, colour in np.ndindex(whole.shape):
        for j, row in enumerate(tiles):
            if not 0 <= y - top[j] < row[0].shape[0]:
                continue
            along = 0
            for i, tile in enumerate(row):
                if 0 <= x - left[i] < tile.shape[1]:
                    along = joined(along, int(tile[y - top[j], x - left[i], colour]), x, left[i], i == 0)
            whole[y, x, colour] = joined(int(whole[y, x, colour]), along, y, top[j], j == 0)
    return whole


def test_changed_tiles_go_over_into_each_other() -> None:
    pieces = Patchwork((26, 17), (10, 9), 4)
    generator = np.random.default_rng(3)
    tiles = [[generator.integers(0, 256, (9, 10, 3), dtype=np.uint8) for _ in range(4)] for _ in range(3)]
    for tile in (tile for row in tiles for tile in row):
        pieces.add(Image.fromarray(tile))
    expected = by_hand(tiles, tile_starts(26, 10, 4), tile_starts(17, 9, 4), 4, (26, 17))
    assert np.array_equal(np.asarray(pieces.picture), expected)


def test_larger_tiles_lie_where_the_small_ones_were() -> None:
    picture = noise(70, 50)
    pieces = Patchwork(picture.size, (32, 32), 8, times=3)
    for left, top, right, bottom in pieces.boxes:
        part = picture.crop((left, top, right, bottom))
        pieces.add(part.resize((part.width * 3, part.height * 3), Image.Resampling.NEAREST))
    assert np.array_equal(np.asarray(pieces.picture), np.asarray(picture.resize((210, 150), Image.Resampling.NEAREST)))
