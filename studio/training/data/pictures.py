"""Picture files from anywhere: what is read, how a damaged one is told, and how any of them becomes plain RGB.

Only the formats of ``FORMATS`` are opened, up to ``MAX_BYTES`` and ``MAX_PIXELS``, and whatever goes wrong inside the image
library is an ``Unusable`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError, features

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "AVIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
MAX_BYTES = 256 << 20
MAX_PIXELS = 64 * 1024 * 1024
MIN_SIDE = 8
"""Pixels; what is smaller holds nothing to learn, and no latent."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag Orientation: what brings the stored rows and columns upright."""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")

T = TypeVar("T")


class Unusable(Exception):
    """A picture or a caption that cannot be used; the message goes on a sentence that begins with its name."""


@dataclass(frozen=True)
class Facts:
    """What is known of a picture without its pixels: SHA-256 of its file (64 hex), and width and height in pixels, upright."""

    key: str
    size: tuple[int, int]


def key_of(data: bytes) -> str:
    """The name of a picture in caches."""
    return sha256(data).hexdigest()


def measure(data: bytes) -> Facts:
    """Facts of a picture file, which is checked to its end: PNG by its checksums, JPEG decoded at an eighth, others whole, as is
    a PNG with EXIF, which may stand behind the pixels.

    Raises ``Unusable``.
    """
    with _opened(data) as image:
        width, height = image.size
        turned = False
        if image.format == "PNG" and b"eXIf" not in data:
            _guarded(image.verify)
        else:
            image.draft("RGB", (width // 8, height // 8))  # acts on JPEG only
            _guarded(image.load)
            turned = _orientation(image) in (5, 6, 7, 8)
    size = (height, width) if turned else (width, height)
    if min(size) < MIN_SIDE:
        raise Unusable(f"is {size[0]}x{size[1]} pixels; each side must have {MIN_SIDE}")
    return Facts(key_of(data), size)


def decode(data: bytes) -> Image.Image:
    """The picture, upright, as 8-bit RGB; what is transparent is laid over white. Raises ``Unusable``."""
    with _opened(data) as image:
        pixels = _guarded(lambda: _plain(image))
        turn = _TURNS.get(_orientation(image))
    return pixels if turn is None else pixels.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode in _DEEP_MODES:  # Pillow's own conversion cuts 16 bits off at 255
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray((deep >> 8).clip(0, 255).astype(np.uint8), "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _opened(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise Unusable(f"has {len(data) >> 20} MB; at most {MAX_BYTES >> 20} are read")
    if not data:
        raise Unusable("is empty")
    formats = FORMATS if features.check("avif") else FORMATS[:-1]
    image = _guarded(lambda: Image.open(BytesIO(data), formats=formats))
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height / 1e6
        raise Unusable(f"has {megapixels:,.0f} megapixels; at most {MAX_PIXELS / 1e6:.0f} are read")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where the EXIF block is damaged: the pixels may be sound."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _guarded(read: Callable[[], T]) -> T:
    """Run a piece of the image library. On hostile files it raises about anything: OSError, ValueError, struct.error ..."""
    try:
        return read()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(f"has more than the {MAX_PIXELS / 1e6:.0f} megapixels that are read") from error
    except UnidentifiedImageError as error:
        raise Unusable(f"is no picture that can be read ({', '.join(FORMATS)})") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise Unusable(f"is damaged: {reason[:200]}") from error
