"""A finished picture as a file: PNG, or JPEG, WebP or AVIF, with its text inside where A1111 puts it.

PNG is what the engine makes and what nothing is lost in. The others are made of it when a picture is saved; where a format
cannot hold the picture (too large a side, too long a text, no encoder) it stays a PNG, with a sentence that says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import Image, PngImagePlugin, features

from studio.infotext.exif import comment_block
from studio.schema.request import PictureFormat

PARAMETERS = "parameters"
DEFAULT_QUALITY = 80
"""A1111's, for a job that names none."""


@dataclass(frozen=True)
class Encoding:
    """A format that loses detail: Pillow's name, what users call it, the longest side in pixels, the modes it takes."""

    name: str
    label: str
    longest: int
    alpha: bool


ENCODINGS: dict[PictureFormat, Encoding] = {
    "jpg": Encoding("JPEG", "JPEG", 65_500, alpha=False),  # libjpeg's; the format itself could hold 65,535
    "webp": Encoding("WEBP", "WebP", 16_383, alpha=True),
    "avif": Encoding("AVIF", "AVIF", 65_535, alpha=True),
}


@dataclass(frozen=True)
class EncodedPicture:
    """A file's bytes and its suffix, such as ".png"; `warning` says why it is a PNG although another format was asked for."""

    data: bytes
    suffix: str
    warning: str | None = None


def encode_png(image: Image.Image, infotext: str) -> bytes:
    """`image` as a PNG file with `infotext` in its `parameters` chunk: tEXt if it is Latin-1, iTXt (UTF-8) if not."""
    chunks = PngImagePlugin.PngInfo()
    if infotext:
        chunks.add_text(PARAMETERS, infotext)
    buffer = BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def encode_saved(png: bytes, infotext: str, wanted: PictureFormat, quality: int) -> EncodedPicture:
    """A finished PNG in the format its file shall have. `quality` is 1 to 100. Never raises: see `EncodedPicture.warning`."""
    if wanted not in ENCODINGS:
        return EncodedPicture(png, ".png")
    try:
        with Image.open(BytesIO(png), formats=("PNG",)) as image:
            return EncodedPicture(_encoded(image, infotext, ENCODINGS[wanted], quality), f".{wanted}")
    except (OSError, ValueError, KeyError) as error:
        return EncodedPicture(png, ".png", _instead(wanted, error))


def encode_image(image: Image.Image, infotext: str, wanted: PictureFormat, quality: int) -> EncodedPicture:
    """The same for pixels. `quality` is 1 to 100 (PNG has none)."""
    if wanted not in ENCODINGS:
        return EncodedPicture(encode_png(image, infotext), ".png")
    try:
        return EncodedPicture(_encoded(image, infotext, ENCODINGS[wanted], quality), f".{wanted}")
    except (OSError, ValueError, KeyError) as error:
        return EncodedPicture(encode_png(image, infotext), ".png", _instead(wanted, error))


def _instead(wanted: PictureFormat, error: Exception) -> str:
    reason = str(error).rstrip(".") or type(error).__name__
    return f"The picture was saved as PNG instead of {ENCODINGS[wanted].label}: {reason}."


def _encoded(image: Image.Image, infotext: str, encoding: Encoding, quality: int) -> bytes:
    """Raises `ValueError` for what the format cannot hold; a text of more than 64 kB in a JPEG is Pillow's to refuse."""
    if encoding.name == "AVIF" and not features.check("avif"):
        raise ValueError("this installation of Pillow has no AVIF encoder")
    if max(image.size) > encoding.longest:
        raise ValueError(f"{image.width}x{image.height} pixels are too many, a side may have {encoding.longest:,}")
    fitting = image if image.mode == "RGB" or (encoding.alpha and image.mode == "RGBA") else image.convert("RGB")
    buffer = BytesIO()
    fitting.save(buffer, format=encoding.name, quality=quality, exif=comment_block(infotext) if infotext else b"")
    return buffer.getvalue()
