"""Generation text inside pictures: the `parameters` chunk of a PNG, the EXIF user comment of JPEG and WebP, a GIF's comment.

Pictures come from anywhere, so only these four formats are opened, a picture may have 64 megapixels, a text
`MAX_INFOTEXT` characters, and whatever goes wrong inside the image library is a `DamagedFile`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, TypeVar

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from studio.errors import DamagedFile
from studio.infotext.novelai import novelai_infotext
from studio.infotext.read import MAX_INFOTEXT, parse_infotext
from studio.infotext.stealth import hidden_text

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 64 * 1024 * 1024
MAX_ITEM = 100_000
"""Characters of any other text in a picture that are shown."""
PARAMETERS = "parameters"
_NO_TEXT = frozenset(
    {"exif", "icc_profile", "photoshop", "transparency", "background", "chromaticity", "extension", "xmp"}
)
_CODE_LENGTH = 8

T = TypeVar("T")


@dataclass(frozen=True)
class PictureInfo:
    """What a picture file says about itself.

    `infotext` is None where there is no generation text; `items` is other text in the file, untrusted, by its name;
    `request` and `notes` are those of `ParsedInfotext`. `width` and `height` in pixels.
    """

    infotext: str | None
    items: dict[str, str]
    width: int
    height: int
    format: str
    request: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_picture(data: bytes, loras: Mapping[str, str] | None = None) -> PictureInfo:
    """Find and parse the generation text in a picture file; `loras` as in `parse_infotext`.

    Text is looked for where programs write it, then hidden in the pixels (which decodes them). Raises `DamagedFile` for a
    file that is no picture of the known formats, too large, or broken before its text.
    """
    image = _guarded(lambda: Image.open(BytesIO(data), formats=FORMATS))
    if image.width * image.height > MAX_PIXELS:
        megapixels = image.width * image.height / 1e6
        message = f"The picture has {megapixels:,.0f} megapixels; at most {MAX_PIXELS / 1e6:.0f} are opened."
        raise DamagedFile(message, field="image")
    with image:
        text = _written(image)
        if text is None and image.format == "PNG":
            _guarded(image.load)  # chunks behind the pixels are read only now
            text = _written(image) or hidden_text(image)
        items = _items(image)
        size = (image.width, image.height, image.format or "")
    if text is None:
        return PictureInfo(None, items, *size, notes=["The picture holds no generation text."])
    if len(text) > MAX_INFOTEXT:
        message = f"The picture holds {len(text):,} characters of generation text; at most {MAX_INFOTEXT:,} are read."
        raise DamagedFile(message, field="image")
    parsed = parse_infotext(text, loras)
    return PictureInfo(text, items, *size, request=parsed.request, notes=parsed.notes)


def encode_png(image: Image.Image, infotext: str) -> bytes:
    """`image` as a PNG file with `infotext` in its `parameters` chunk: tEXt if it is Latin-1, iTXt (UTF-8) if not."""
    chunks = PngImagePlugin.PngInfo()
    if infotext:
        chunks.add_text(PARAMETERS, infotext)
    buffer = BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def encode_picture(image: Image.Image, infotext: str, extension: str) -> bytes:
    """`image` as a file of the kind "png", "jpg" or "webp" (quality 80), `infotext` where A1111 puts it: see the module.

    The EXIF block of a JPEG holds some 32 000 characters.
    """
    if extension == "png":
        return encode_png(image, infotext)
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + infotext.encode("utf-16-be")
    buffer = BytesIO()
    image.save(buffer, format={"jpg": "JPEG", "webp": "WEBP"}[extension], quality=80, exif=exif)
    return buffer.getvalue()


def _guarded(read: Callable[[], T]) -> T:
    """Run a piece of the image library. On hostile files it raises about anything: OSError, ValueError, struct.error ..."""
    try:
        return read()
    except Image.DecompressionBombError as error:
        raise DamagedFile(f"The picture is too large: {error}", field="image") from error
    except UnidentifiedImageError as error:
        raise DamagedFile(f"This is no picture that can be read ({', '.join(FORMATS)}).", field="image") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise DamagedFile(f"The picture is damaged: {reason[:200]}.", field="image") from error


def _written(image: Image.Image) -> str | None:
    """Text from the places that are made for it."""
    parameters = image.info.get(PARAMETERS)
    if isinstance(parameters, str):
        return str(parameters)
    if image.info.get("Software") == "NovelAI":
        return novelai_infotext(image.info, image.width, image.height)
    if image.info.get("exif"):
        return _user_comment(image)
    comment = image.info.get("comment")
    if image.format == "GIF" and isinstance(comment, bytes):
        return comment.decode("utf-8", "replace")
    return None


def _user_comment(image: Image.Image) -> str | None:
    """EXIF UserComment: 8 bytes naming the code, then the text. A broken EXIF block counts as none."""
    try:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except Exception:
        return None
    if isinstance(comment, str):
        return comment or None
    if not isinstance(comment, bytes) or not comment:
        return None
    code, text = comment[:_CODE_LENGTH], comment[_CODE_LENGTH:]
    if code.startswith(b"UNICODE"):
        return text.decode(_utf16(text), "replace")
    if code.startswith(b"ASCII") or not code.strip(b"\0"):
        return text.decode("utf-8", "replace")
    return comment.decode("utf-8", "replace")


def _utf16(text: bytes) -> str:
    """Big-endian as piexif writes it, unless zero high bytes say little-endian: Latin letters are in every text."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-16-le" if text[1::2].count(0) > text[0::2].count(0) else "utf-16-be"


def _items(image: Image.Image) -> dict[str, str]:
    """Other text in the file."""
    items: dict[str, str] = {}
    for key, value in image.info.items():
        if key == PARAMETERS or key in _NO_TEXT or not isinstance(value, (str, bytes)):
            continue
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        items[str(key)] = text if len(text) <= MAX_ITEM else f"{text[:MAX_ITEM]}…"
    return items
