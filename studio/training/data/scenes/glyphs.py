"""Cut-out pictures of objects: emoji glyphs and vector shapes, in their own colours or in a named one.

The glyphs come from Noto Color Emoji (Google, SIL Open Font License 1.1), a bitmap font whose single strike is 136x128 pixels; the Debian
package is ``fonts-noto-color-emoji``. The shapes are polygons drawn here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from studio.errors import TrainingError
from studio.training.data.scenes.layout import Outline
from studio.training.data.scenes.vocabulary import COLOURS, ObjectKind

FONT_PATH = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109
"""The one size at which FreeType offers the font's bitmaps."""

_SUPERSAMPLE = 4
_SIDE = 128


class GlyphAtlas:
    """Draws objects as tight RGBA cut-outs and keeps what it drew.

    Raises ``TrainingError`` on construction when the emoji font is missing or cannot be read.
    """

    def __init__(self, font_path: Path = FONT_PATH) -> None:
        try:
            self._font = ImageFont.truetype(str(font_path), STRIKE)
        except OSError as error:
            raise TrainingError(
                f"The emoji font {font_path} cannot be read ({error}). Install it with: apt-get install fonts-noto-color-emoji"
            ) from error
        self.cutout = lru_cache(maxsize=None)(self._cutout)
        self.outline = lru_cache(maxsize=None)(self._outline)

    def _cutout(self, kind: ObjectKind, colour: str) -> Image.Image:
        """Tight RGBA picture of ``kind``; ``colour`` is a key of ``COLOURS`` or empty for the object's own colours."""
        if kind.is_shape:
            return recolour(_shape(kind.name), colour or kind.natural)
        picture = self._glyph(kind.glyph)
        return recolour(picture, colour) if colour else picture

    def _outline(self, kind: ObjectKind) -> Outline:
        """What layout must know of ``kind``; the seat is where the middle third of the cut-out begins."""
        picture = self.cutout(kind, "")
        longer = max(picture.size)
        opaque = np.asarray(picture)[..., 3] > 127
        third = picture.width // 3
        rows = np.flatnonzero(opaque[:, third : picture.width - third].any(axis=1))
        return Outline(picture.width / longer, picture.height / longer, int(rows[0]) / longer)

    def _glyph(self, text: str) -> Image.Image:
        canvas = Image.new("RGBA", (_SIDE * 2, _SIDE * 2))
        ImageDraw.Draw(canvas).text((_SIDE // 2, _SIDE // 2), text, font=self._font, embedded_color=True)
        box = canvas.getbbox()
        if box is None:
            raise TrainingError(f"The emoji font has no glyph for {text!r}")
        return canvas.crop(box)


def recolour(picture: Image.Image, colour: str) -> Image.Image:
    """The same cut-out in one hue: luminance runs from a dark through the named colour to a light tone, so inner lines survive."""
    pixels = np.asarray(picture, dtype=np.float32)
    alpha = pixels[..., 3:]
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
    weight = alpha[..., 0] / 255
    mean = float((luminance * weight).sum() / max(float(weight.sum()), 1.0))
    level = np.clip(0.5 + (luminance - mean) * 0.85, 0, 1)[..., None]
    tone = np.array(COLOURS[colour], dtype=np.float32)
    dark = tone * (0.35 if colour != "white" else 0.55)
    light = tone + (255 - tone) * (0.65 if colour != "black" else 0.40)
    painted = np.where(level < 0.5, dark + (tone - dark) * level * 2, tone + (light - tone) * (level - 0.5) * 2)
    return Image.fromarray(np.concatenate([painted, alpha], axis=-1).clip(0, 255).astype(np.uint8), "RGBA")


def _shape(name: str) -> Image.Image:
    side = _SIDE * _SUPERSAMPLE
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if name == "circle":
        pen.ellipse((2, 2, side - 3, side - 3), fill=255)
    else:
        pen.polygon([(float(x) * (side - 1), float(y) * (side - 1)) for x, y in _corners(name)], fill=255)
    mask = mask.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    picture = Image.new("RGBA", (_SIDE, _SIDE), (128, 128, 128, 255))
    picture.putalpha(mask)
    box = mask.getbbox()
    assert box is not None
    return picture.crop(box)


def _corners(name: str) -> npt.NDArray[np.float64]:
    """Corners of a shape in the unit square, y down."""
    if name == "square":
        return np.array([(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)])
    if name == "triangle":
        return np.array([(0.5, 0.04), (0.99, 0.93), (0.01, 0.93)])
    if name == "diamond":
        return np.array([(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)])
    if name == "star":
        angles = -math.pi / 2 + np.arange(10) * math.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 0.5, 0.21)
        return np.stack([0.5 + radius * np.cos(angles), 0.52 + radius * np.sin(angles)], axis=1)
    if name == "heart":
        t = np.linspace(0, 2 * math.pi, 120, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([0.5 + x / 34, 0.46 - y / 34], axis=1)
    if name == "cross":
        near, far = 0.36, 0.64
        arms = [(near, 0), (far, 0), (far, near), (1, near), (1, far), (far, far)]
        return np.array([*arms, *((1 - x, 1 - y) for x, y in arms)])
    if name == "arrow":
        upper = [(0.0, 0.34), (0.5, 0.34), (0.5, 0.08), (1.0, 0.5)]
        return np.array([*upper, *((x, 1 - y) for x, y in reversed(upper[:3]))])
    raise TrainingError(f"No outline is known for the shape {name!r}")
