"""Look at the data: a contact sheet of true scenes with their captions.

python -m studio.training.data.scenes.sheet OUT.png [--seed 1] [--start 0] [--count 64] [--side 128] [--held-out]
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from studio.training.counter import generator
from studio.training.data.scenes.captions import write_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, draw_scene

_LINE, _LINES = 12, 3


def main(arguments: list[str] | None = None) -> int:
    """Draw scenes ``start .. start + count`` of a seed and save their sheet; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.training.data.scenes.sheet", description="Contact sheet of drawn scenes."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--held-out", action="store_true", help="scenes that training never sees")
    given = parser.parse_args(arguments)
    indices = range(given.start, given.start + given.count)
    scenes = [draw_scene(given.seed, index, held_out=given.held_out) for index in indices]
    captions = [
        write_caption(scene, generator(given.seed, "caption", i)) for i, scene in zip(indices, scenes, strict=True)
    ]
    contact_sheet(captions, draw(scenes, given.seed, given.start, given.side)).save(given.out)
    return 0


def draw(scenes: Sequence[Scene], seed: int, start: int, side: int) -> list[npt.NDArray[np.uint8]]:
    """The pictures of ``scenes``, the first painted as index ``start`` of ``seed``; each (side, side, 3)."""
    atlas = GlyphAtlas()
    return [paint_scene(scene, atlas, seed, start + offset, side) for offset, scene in enumerate(scenes)]


def contact_sheet(captions: Sequence[str], pictures: Sequence[npt.NDArray[np.uint8]], columns: int = 8) -> Image.Image:
    """Equal square pictures in rows, their captions below them in up to three lines."""
    side = pictures[0].shape[0]
    cell = (side + 8, side + _LINE * _LINES + 10)
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (columns * cell[0], -(-len(pictures) // columns) * cell[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (caption, picture) in enumerate(zip(captions, pictures, strict=True)):
        x, y = number % columns * cell[0] + 4, number // columns * cell[1] + 4
        sheet.paste(Image.fromarray(picture), (x, y))
        for row, line in enumerate(textwrap.wrap(caption, width=max(8, side // 5))[:_LINES]):
            pen.text((x, y + side + 2 + row * _LINE), line, fill="black", font=font)
    return sheet


if __name__ == "__main__":
    raise SystemExit(main())
