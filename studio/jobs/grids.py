"""Grids: all pictures of a job on one sheet, as AUTOMATIC1111 lays them out.

Rows are the rounded square root of the count; cells fill row by row; what is left over stays white.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

from PIL import Image

from studio.errors import InvalidRequest
from studio.infotext import encode_picture
from studio.naming.place import fitting_extension

MAX_PIXELS = 200_000_000
"""Pixels a grid may have, A1111's limit: a larger one is of no use to anybody and takes gigabytes to make."""
MAX_EXIF_TEXT = 30_000
"""Characters of infotext that surely fit into the EXIF block of a JPEG, which holds 65 533 bytes."""


def grid_shape(count: int) -> tuple[int, int]:
    """(columns, rows) for `count` >= 1 pictures."""
    rows = round(math.sqrt(count))
    return math.ceil(count / rows), rows


def draw_grid(
    pictures: Iterable[bytes], count: int, cell: tuple[int, int], infotext: str, extension: str
) -> tuple[bytes, str]:
    """One file of `count` PNGs, each (width, height) = `cell` pixels, with `infotext` inside.

    Returns it with its extension: png where the wanted one ("png", "jpg", "webp") cannot hold the size or the text. `pictures` is
    read one at a time. Raises `InvalidRequest` when the grid would be larger than 200 megapixels.
    """
    columns, rows = grid_shape(count)
    width, height = columns * cell[0], rows * cell[1]
    if width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"A grid of {count} pictures would have {width}x{height} pixels; at most {MAX_PIXELS:,} are possible."
        )
    sheet = Image.new("RGB", (width, height), "white")
    for place, data in enumerate(pictures):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            sheet.paste(picture.convert("RGB"), (place % columns * cell[0], place // columns * cell[1]))
    fitting = fitting_extension(extension, width, height) if len(infotext) <= MAX_EXIF_TEXT else "png"
    return encode_picture(sheet, infotext, fitting), fitting


def rgb_bytes(png: bytes) -> bytes:
    """The pixels of a PNG, three bytes each, row by row."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return picture.convert("RGB").tobytes()
