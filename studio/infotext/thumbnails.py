"""Pictures made small, for pages that show many."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from studio.infotext.opening import guarded, open_picture

QUALITY = 85


def small_picture(data: bytes, side: int) -> bytes:
    """`data` itself where neither side is longer than `side` pixels, else a JPEG in which the longer one has `side`.

    What is transparent lies on white. Raises `DamagedFile` for what is no picture.
    """
    image = open_picture(data)
    return data if max(image.size) <= side else guarded(lambda: as_jpeg(image, side))


def as_jpeg(image: Image.Image, side: int) -> bytes:
    """A JPEG of `image`, neither side longer than `side` pixels; `image` may become smaller on the way."""
    image.thumbnail((side, side))
    if image.mode != "RGB":
        above = image.convert("RGBA")
        image = Image.new("RGB", image.size, (255, 255, 255))
        image.paste(above, mask=above)
    out = BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
