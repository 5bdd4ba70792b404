"""The styles: each makes the finished picture from the scene's parts, so that a thing's outline is known where a style needs it.

All lengths are fractions of the side. Every style shows at 128 pixels beside every other, and beside the picture without a style.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter, ImageOps

from studio.errors import TrainingError

_INK = (20, 20, 30)


@dataclass(frozen=True)
class Parts:
    """A scene before its style: ``background`` (RGB), ``shadow`` on the ground (L, 255 is full shade), ``things`` (RGBA, clear where the
    background shows), all square and of one size, and the random numbers for what a style leaves open."""

    background: Image.Image
    shadow: Image.Image
    things: Image.Image
    rng: np.random.Generator

    @property
    def side(self) -> int:
        return self.background.width

    def composed(self) -> Image.Image:
        """The picture without a style."""
        picture = self.background.copy()
        picture.paste(_INK, mask=self.shadow)
        picture.paste(self.things, mask=self.things)
        return picture


def apply_style(parts: Parts, style: str) -> Image.Image:
    """RGB picture in ``style``, a key of ``vocabulary.STYLES`` or empty for none. Raises ``TrainingError`` for another name."""
    if not style:
        return parts.composed()
    if style not in _STYLES:
        raise TrainingError(f"No style {style!r} can be painted; known: {', '.join(_STYLES)}")
    return _STYLES[style](parts)


def _flat(parts: Parts) -> Image.Image:
    """Few even tones, no soft shade, and the long hard shadow of flat design, which falls to the lower right."""
    picture = _posterised(parts.background, 10)
    mask = parts.things.getchannel("A")
    shade, reach = mask, 1
    while reach < parts.side:
        shade = ImageChops.lighter(shade, _moved(shade, reach, reach))
        reach *= 2
    picture.paste(Image.blend(picture, Image.new("RGB", picture.size), 0.35), mask=shade)
    picture.paste(_posterised(parts.things.convert("RGB"), 8), mask=mask.point(_crisp))
    return picture


def _pencil_sketch(parts: Parts) -> Image.Image:
    """Colour dodge of the gray picture by its blurred negative: lines where brightness changes, paper elsewhere. The outlines of things are
    drawn over, and dark areas hatched."""
    gray = parts.composed().convert("L")
    blurred = np.asarray(ImageOps.invert(gray).filter(ImageFilter.GaussianBlur(parts.side / 40)), dtype=np.float32)
    base = np.asarray(gray, dtype=np.float32)
    lines = np.minimum(base * 255 / (256 - blurred), 255)
    mask = parts.things.getchannel("A")
    outline = np.asarray(ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(3))), dtype=np.float32)
    rows, columns = np.indices(base.shape)
    stroke = np.sin((rows + columns) * (2 * np.pi * 20 / parts.side)) * 0.5 + 0.5
    hatching = np.clip((150 - base) / 150, 0, 1) * stroke * 120
    drawn = np.maximum((255 - lines) * 1.5, outline * 0.7) + hatching
    return Image.fromarray((255 - drawn).clip(40, 252).astype(np.uint8)).convert("RGB")


def _pixel_art(parts: Parts) -> Image.Image:
    """32 cells a side, of 24 colours."""
    cells = 32
    small = parts.composed().resize((cells, cells), Image.Resampling.BOX)
    return small.quantize(24).convert("RGB").resize((parts.side, parts.side), Image.Resampling.NEAREST)


def _watercolour(parts: Parts) -> Image.Image:
    """Washed colours that run over their edges, pool there and in blotches, on paper that stays white around the painting."""
    side, rng = parts.side, parts.rng
    wet = _displaced(parts.composed().filter(ImageFilter.MedianFilter(3)), rng, reach=side / 50)
    soft = wet.filter(ImageFilter.GaussianBlur(side / 200))
    colour = np.asarray(soft, dtype=np.float32)
    pooled = np.asarray(soft.filter(ImageFilter.GaussianBlur(side / 24)), dtype=np.float32) - colour
    strength = 0.74 + 0.26 * _noise(rng, 7, side)[..., None]
    pigment = (255 - colour + 0.9 * np.maximum(pooled, 0)) * strength
    rows, columns = (np.minimum(axis, side - 1 - axis) / side for axis in np.indices((side, side)))
    from_edge = np.minimum(rows, columns) - 0.035 - 0.05 * _noise(rng, 9, side)
    painted = np.clip(from_edge / 0.02, 0, 1)[..., None]
    paper = np.array([253, 251, 244], dtype=np.float32)
    return Image.fromarray((paper - pigment * painted * 0.92).clip(0, 255).astype(np.uint8))


def _sticker(parts: Parts) -> Image.Image:
    """A white rim around each thing and a soft shadow behind, as if stuck on the picture."""
    mask = parts.things.getchannel("A")
    rim = 2 * round(parts.side / 32) + 1
    paper = mask.filter(ImageFilter.MaxFilter(rim)).filter(ImageFilter.GaussianBlur(parts.side / 64)).point(_crisp)
    drop = round(parts.side / 50)
    shadow = _moved(paper, drop, drop).filter(ImageFilter.GaussianBlur(parts.side / 50)).point(_half)
    picture = parts.background.copy()
    picture.paste(_INK, mask=shadow)
    picture.paste((255, 255, 255), mask=paper)
    picture.paste(parts.things, mask=parts.things)
    return picture


def _black_and_white(parts: Parts) -> Image.Image:
    """Gray tones of somewhat more contrast."""
    return parts.composed().convert("L").point(_more_contrast).convert("RGB")


_STYLES: dict[str, Callable[[Parts], Image.Image]] = {
    "flat": _flat,
    "pencil sketch": _pencil_sketch,
    "pixel art": _pixel_art,
    "watercolour": _watercolour,
    "sticker": _sticker,
    "black and white": _black_and_white,
}


def _more_contrast(value: float) -> float:
    return (value - 128) * 1.2 + 128


def _crisp(value: float) -> float:
    return (value - 128) * 4 + 128


def _half(value: float) -> float:
    return value * 0.55


def _posterised(picture: Image.Image, colours: int) -> Image.Image:
    return picture.quantize(colours, dither=Image.Dither.NONE).convert("RGB")


def _moved(mask: Image.Image, dx: int, dy: int) -> Image.Image:
    moved = Image.new("L", mask.size)
    moved.paste(mask, (dx, dy))
    return moved


def _noise(rng: np.random.Generator, cells: int, side: int) -> npt.NDArray[np.float32]:
    """Smooth noise in [0, 1], shape (side, side), with about ``cells`` hills a side."""
    coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)


def _displaced(picture: Image.Image, rng: np.random.Generator, reach: float) -> Image.Image:
    """Every pixel taken from up to ``reach`` pixels away, neighbours from nearly the same direction."""
    side = picture.width
    rows, columns = np.indices((side, side))
    down, right = ((2 * _noise(rng, 16, side) - 1) * reach for _ in range(2))
    rows = (rows + down).round().astype(np.int64).clip(0, side - 1)
    columns = (columns + right).round().astype(np.int64).clip(0, side - 1)
    return Image.fromarray(np.asarray(picture)[rows, columns])
