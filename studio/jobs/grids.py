"""Grids: all pictures of a job on one sheet, as AUTOMATIC1111 lays them out.

Rows are the rounded square root of the count; cells fill row by row; what is left over stays white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

from PIL import Image

from studio.errors import InvalidRequest
from studio.infotext import EncodedPicture, encode_image
from studio.infotext.opening import FORMATS
from studio.schema.request import PictureFormat

MAX_PIXELS = 200_000_000
"""Pixels a grid may have, A1111's limit: a larger one is of no use to anybody and takes gigabytes to make."""


def grid_shape(count: int) -> tuple[int, int]:
    """(columns, rows) for `count` >= 1 pictures."""
    rows = round(math.sqrt(count))
    return math.ceil(count / rows), rows


def draw_grid(
    pictures: Iterable[bytes], count: int, cell: tuple[int, int], infotext: str, wanted: PictureFormat, quality: int
) -> EncodedPicture:
    """One file of `count` pictures, each (width, height) = `cell` pixels, with `infotext` inside.

    A PNG with a warning where the `wanted` format cannot hold the size or the text. `pictures` is read one at a time. Raises `InvalidRequest` when the grid would be larger than 200 megapixels.
    """
    columns, rows = grid_shape(count)
    width, height = columns * cell[0], rows * cell[1]
    if width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"A grid of {count} pictures would have {width}x{height} pixels; at most {MAX_PIXELS:,} are possible."
        )
    sheet = Image.new("RGB", (width, height), "white")
    for place, data in enumerate(pictures):
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            sheet.paste(picture.convert("RGB"), (place % columns * cell[0], place // columns * cell[1]))
    return encode_image(sheet, infotext, wanted, quality)


def rgb_bytes(file: bytes) -> bytes:
    """The pixels of a picture, three bytes each, row by row."""
    with Image.open(io.BytesIO(file), formats=FORMATS) as picture:
        return picture.convert("RGB").tobytes()
