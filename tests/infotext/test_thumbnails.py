"""Small versions of pictures: their size, their pixels, and what is no picture."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from studio.errors import DamagedFile
from studio.infotext.thumbnails import as_jpeg, small_picture


def png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(("size", "small"), [((800, 400), (100, 50)), ((300, 900), (33, 100)), ((101, 7), (100, 7))])
def test_the_longer_side_gets_the_size(size: tuple[int, int], small: tuple[int, int]) -> None:
    image = opened(small_picture(png(Image.new("RGB", size, (200, 40, 90))), 100))
    assert (image.format, image.size) == ("JPEG", small)
    colour = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(colour, tuple)
    assert max(abs(a - b) for a, b in zip(colour, (200, 40, 90), strict=True)) <= 3


def test_what_is_small_already_stays_as_it_is() -> None:
    data = png(Image.new("RGB", (100, 60)))
    assert small_picture(data, 100) is data


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1"])
def test_other_kinds_of_pixels(mode: str) -> None:
    image = opened(small_picture(png(Image.new(mode, (200, 200))), 100))
    black = mode in ("L", "P", "1")  # the others are wholly transparent: white shows
    assert (image.mode, image.getpixel((50, 50))) == ("RGB", (0, 0, 0) if black else (255, 255, 255))


def test_the_picture_itself_is_not_changed_where_it_is_small() -> None:
    image = Image.new("RGB", (20, 10), (9, 9, 9))
    assert opened(as_jpeg(image, 100)).size == (20, 10)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(DamagedFile):
        small_picture(b"no picture", 100)
    with pytest.raises(DamagedFile):
        small_picture(png(Image.effect_noise((300, 300), 50))[:-2000], 100)
