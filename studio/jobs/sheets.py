"""The sheet of a plot: its pictures in columns and rows, the values beside them, one block for each value of Z.

                 CFG Scale: 5   CFG Scale: 7
    Euler        [picture]      [picture]
    Heun         [picture]      (missing: grey)

All cells are as large as the largest picture; a smaller one stands in the middle of its own.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

from PIL import Image, ImageDraw, ImageFont

from studio.errors import InvalidRequest
from studio.infotext.opening import FORMATS
from studio.jobs.grids import MAX_PIXELS
from studio.plots import AXES, plot_type
from studio.schema.resolved import PlotPlan

PAPER, INK, MISSING = "white", "black", (153, 153, 153)
SHOWN_TYPES = (
    "Prompt S/R",
    "Prompt order",
    "Sampler",
    "Hires sampler",
    "Schedule type",
    "Checkpoint name",
    "VAE",
    "Styles",
    "Size",
)
"""Axes whose values speak for themselves: they stand there without the axis's name."""
MAX_LABEL = 200
"""Characters of a value that are written."""


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in pixels. `head` is the height of the labels of X, `side` the width of those of Y, `top` the height of Z's."""

    cell: tuple[int, int]
    margin: int
    head: int = 0
    side: int = 0
    top: int = 0

    def block(self, columns: int, rows: int) -> tuple[int, int]:
        """(width, height) of one block with its labels."""
        across = columns * self.cell[0] + (columns - 1) * self.margin
        down = rows * self.cell[1] + (rows - 1) * self.margin
        return self.side + across, self.top + self.head + down


def draw_sheet(sizes: Mapping[int, tuple[int, int]], read: Callable[[int], bytes], plot: PlotPlan) -> Image.Image:
    """The sheet of a plot, RGB.

    `sizes` are (width, height) of the pictures that were finished, by their number in reading order; `read` gives the file of one. They are
    read one at a time. Raises `InvalidRequest` when it would be larger than 200 megapixels.
    """
    cell = (max(width for width, _ in sizes.values()), max(height for _, height in sizes.values()))
    labels = [[_label(plot, axis, value) for value in values] for axis, values in zip(AXES, plot.labels, strict=True)]
    font = ImageFont.load_default(size=max(12, min(32, cell[0] // 16)))
    assert isinstance(font, ImageFont.FreeTypeFont), "what a size is given for"
    layout = _layout(labels, cell, plot, font)
    columns, rows, blocks = (len(values) for values in labels)
    width, height = layout.block(columns, rows)
    whole = (blocks * width + (blocks - 1) * max(layout.margin, cell[0] // 16), height)
    if whole[0] * whole[1] > MAX_PIXELS:
        raise InvalidRequest(
            f"The sheet of this plot would have {whole[0]}x{whole[1]} pixels; at most {MAX_PIXELS:,} are possible."
        )
    sheet = Image.new("RGB", whole, PAPER)
    for block in range(blocks):
        left = block * (width + max(layout.margin, cell[0] // 16))
        _write_labels(sheet, left, labels, block, layout, font)
        for row, column in product(range(rows), range(columns)):
            corner = _box(left, column, row, layout)
            index = (block * rows + row) * columns + column
            _place(sheet, corner, _opened(read(index)) if index in sizes else None, cell)
    return sheet


def _layout(labels: list[list[str]], cell: tuple[int, int], plot: PlotPlan, font: ImageFont.FreeTypeFont) -> Layout:
    """Room for labels where any axis has some."""
    if not plot.asked.legend:
        return Layout(cell, plot.asked.margin)
    pad = int(font.size)
    side = max(cell[0] * 3 // 4, 6 * pad) if any(labels[1]) else 0
    head = max((_height(text, cell[0], font) for text in labels[0]), default=0)
    wide = side + len(labels[0]) * (cell[0] + plot.asked.margin)
    top = max((_height(text, wide, font) for text in labels[2]), default=0)
    return Layout(cell, plot.asked.margin, head and head + pad, side, top and top + pad)


def _write_labels(
    sheet: Image.Image, left: int, labels: list[list[str]], block: int, layout: Layout, font: ImageFont.FreeTypeFont
) -> None:
    draw = ImageDraw.Draw(sheet)
    cell, (x, y, z) = layout.cell, labels
    if layout.top:
        width = layout.block(len(x), len(y))[0]
        _write(draw, z[block], (left + width // 2, layout.top // 2), width, font)
    if layout.head:
        for column, text in enumerate(x):
            box = _box(left, column, 0, layout)
            _write(draw, text, (box[0] + cell[0] // 2, layout.top + layout.head // 2), cell[0], font)
    if layout.side:
        for row, text in enumerate(y):
            box = _box(left, 0, row, layout)
            _write(draw, text, (left + layout.side // 2, box[1] + cell[1] // 2), layout.side, font)


def _box(left: int, column: int, row: int, layout: Layout) -> tuple[int, int]:
    """The left upper corner of a cell."""
    across, down = layout.cell[0] + layout.margin, layout.cell[1] + layout.margin
    return left + layout.side + column * across, layout.top + layout.head + row * down


def _place(sheet: Image.Image, corner: tuple[int, int], picture: Image.Image | None, cell: tuple[int, int]) -> None:
    """The picture in the middle of its cell; grey where there is none."""
    if picture is None:
        sheet.paste(MISSING, (*corner, corner[0] + cell[0], corner[1] + cell[1]))
        return
    sheet.paste(picture, (corner[0] + (cell[0] - picture.width) // 2, corner[1] + (cell[1] - picture.height) // 2))


def _label(plot: PlotPlan, axis: str, value: str) -> str:
    kind = plot_type(plot.asked, axis)
    if kind == "Nothing":
        return ""
    shown = value if len(value) <= MAX_LABEL else f"{value[: MAX_LABEL - 1]}…"
    return shown if kind in SHOWN_TYPES else f"{kind}: {shown}"


def _write(
    draw: ImageDraw.ImageDraw, text: str, middle: tuple[int, int], width: int, font: ImageFont.FreeTypeFont
) -> None:
    draw.multiline_text(middle, _wrapped(text, width, font), fill=INK, font=font, anchor="mm", align="center")


def _height(text: str, width: int, font: ImageFont.FreeTypeFont) -> int:
    if not text:
        return 0
    box = ImageDraw.Draw(Image.new("1", (1, 1))).multiline_textbbox((0, 0), _wrapped(text, width, font), font=font)
    return int(box[3] - box[1])


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """`text` in lines that fit into `width` pixels, as near as the mean width of its characters tells."""
    each = max(font.getlength(text) / max(len(text), 1), 1)
    return "\n".join(textwrap.wrap(text, max(int(0.9 * width / each), 4)))


def _opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return picture.convert("RGB")
