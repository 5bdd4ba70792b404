"""Opening pictures that come from anywhere: five formats, up to 64 megapixels, and one kind of error whatever goes wrong inside."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TypeVar

from PIL import Image, UnidentifiedImageError, features

from studio.errors import DamagedFile

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
MAX_PIXELS = 64 * 1024 * 1024
_AVIF_BRANDS = (b"ftypavif", b"ftypavis")

T = TypeVar("T")


def open_picture(data: bytes) -> Image.Image:
    """The picture, its pixels not read yet. Raises `DamagedFile` for what is none of the known formats, or too large."""
    has_avif = features.check("avif")
    if not has_avif and data[4:12] in _AVIF_BRANDS:
        message = (
            "This is an AVIF picture, which this installation of Pillow cannot read. Install Pillow 11.3 or newer."
        )
        raise DamagedFile(message, field="image")
    formats = FORMATS if has_avif else tuple(name for name in FORMATS if name != "AVIF")
    image = guarded(lambda: Image.open(BytesIO(data), formats=formats))
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height / 1e6
        message = f"The picture has {megapixels:,.0f} megapixels; at most {MAX_PIXELS / 1e6:.0f} are opened."
        raise DamagedFile(message, field="image")
    return image


def guarded(read: Callable[[], T]) -> T:
    """Run a piece of the image library; on hostile files it raises about anything. Raises `DamagedFile`."""
    try:
        return read()
    except Image.DecompressionBombError as error:
        raise DamagedFile(f"The picture is too large: {error}", field="image") from error
    except UnidentifiedImageError as error:
        raise DamagedFile(f"This is no picture that can be read ({', '.join(FORMATS)}).", field="image") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        message = f"The picture is damaged or cut off ({reason[:200]}). Save or download it again."
        raise DamagedFile(message, field="image") from error
