"""The EXIF user comment: where JPEG, WebP and AVIF carry generation text.

Written as A1111 writes it: 8 bytes `UNICODE` and a zero, then UTF-16, most significant byte first. Read in every code and both
byte orders; ComfyUI's `prompt:` in a text field of the camera is found too.
"""

from __future__ import annotations

from PIL import ExifTags, Image

COMFY_PREFIX = "prompt:"
_CODE_LENGTH = 8
_UNICODE = b"UNICODE\0"
_CAMERA = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.ImageDescription)


def comment_block(text: str) -> bytes:
    """An EXIF block that holds `text` as user comment."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: _UNICODE + text.encode("utf-16-be", "replace")}
    return exif.tobytes()


def user_comment(image: Image.Image) -> str | None:
    """The user comment of a picture. A broken EXIF block counts as none."""
    try:
        exif = image.getexif()
        # Fooocus puts it beside the block it belongs into.
        comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, exif.get(ExifTags.Base.UserComment))
    except Exception:  # on hostile blocks the image library raises about anything
        return None
    if isinstance(comment, str):
        return comment or None
    return _decoded(comment) if isinstance(comment, bytes) and comment else None


def comfyui_graph(image: Image.Image) -> str | None:
    """ComfyUI's graph, which its WebP savers put where a camera's name would stand."""
    try:
        exif = image.getexif()
        values = [exif.get(tag) for tag in _CAMERA]
    except Exception:  # as above
        return None
    return next(
        (value[len(COMFY_PREFIX) :] for value in values if isinstance(value, str) and value.startswith(COMFY_PREFIX)),
        None,
    )


def _decoded(comment: bytes) -> str:
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
