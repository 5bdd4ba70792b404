"""Picture files from anywhere: upright, RGB, or a reason."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from studio.training.data import pictures
from studio.training.data.pictures import Unusable, decode, key_of, measure
from studio.training.data.sources import FileSource
from tests.training.data import drawn

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    """Pillow's own exif_transpose is the oracle."""
    image = drawn.picture(7, (48, 32))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = drawn.encoded(image, kind, exif=exif(orientation), **options)
    with Image.open(BytesIO(data)) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    assert measure(data).size == expected.size
    assert np.array_equal(np.asarray(decode(data)), np.asarray(expected))
    assert expected.size == ((32, 48) if orientation >= 5 else (48, 32))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "AVIF"])
def test_every_format_is_read(kind: str) -> None:
    data = drawn.encoded(drawn.picture(3), kind)
    assert measure(data).size == (48, 48)
    assert measure(data).key == key_of(data)
    assert np.abs(np.asarray(decode(data), int) - np.asarray(drawn.picture(3), int)).mean() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    if mode == "P":
        palette = Image.new("P", (16, 16), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        palette.paste(0, (0, 0, 8, 16))
        data = drawn.encoded(palette, transparency=0)
    else:
        data = drawn.encoded(image.convert(mode))
    pixels = np.asarray(decode(data))
    assert (pixels[:, :8] == 255).all()
    assert not (pixels[:, 8:] == 255).all()


def test_half_transparent_is_half_white() -> None:
    pixels = np.asarray(decode(drawn.encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)))))
    assert abs(int(pixels[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_become_eight() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    data = drawn.encoded(Image.fromarray(ramp))
    assert np.array_equal(np.asarray(decode(data))[:, :, 1].ravel(), np.arange(256))


def test_cmyk_and_grey() -> None:
    assert decode(drawn.encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")).mode == "RGB"
    assert decode(drawn.encoded(Image.new("L", (16, 16), 77))).getpixel((3, 3)) == (77, 77, 77)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_HEAD + head + b"".join(more) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


WHOLE = drawn.encoded(drawn.picture(1))
PHOTO = drawn.encoded(drawn.picture(1, (256, 256)), "JPEG")


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "empty"),
        (b"GIF89a" + b"x" * 50, "no picture"),
        (drawn.encoded(drawn.picture(1), "GIF"), "no picture"),
        (b"<svg onload=alert(1)>", "no picture"),
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (WHOLE[:90] + b"\xff\xff" + WHOLE[92:], "damaged"),
        (PHOTO[: len(PHOTO) // 2], "damaged"),
        (drawn.encoded(drawn.picture(1, (64, 64)), "WEBP")[:-40], "damaged"),
        (png(30_000, 30_000), "megapixels"),
        (png(9_000, 9_000), "megapixels"),
        (drawn.encoded(Image.new("RGB", (4, 400))), "4x400"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        measure(data)


@pytest.mark.parametrize("cut", range(0, len(PHOTO), 97))
def test_a_photo_cut_anywhere_is_noticed(cut: int) -> None:
    with pytest.raises(Unusable):
        measure(PHOTO[:cut])


def test_text_bombs_are_refused() -> None:
    packed = b"k\0\0" + zlib.compress(b"a" * 3_000_000)
    with pytest.raises(Unusable):
        measure(png(16, 16, chunk(b"zTXt", packed)))


def test_damaged_exif_leaves_the_picture_as_it_is_stored() -> None:
    data = drawn.encoded(drawn.picture(1), exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert measure(data).size == (48, 48)


def test_files_larger_than_allowed_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.training.data import sources

    monkeypatch.setattr(pictures, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE)
    with path.open("r+b") as stream:
        stream.truncate(1 << 32)  # sparse: 4 GB that take no room
    assert len(FileSource(path).data()) == (1 << 20) + 1
    with pytest.raises(Unusable, match="MB"):
        FileSource(path).facts()
