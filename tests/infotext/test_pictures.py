"""Text inside pictures: containers.json, our own PNGs, and files that are damaged, huge or hostile."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from studio.errors import DamagedFile
from studio.infotext import encode_png, read_picture
from studio.infotext.read import MAX_INFOTEXT
from tests.vector_files import load_json

FILES = load_json("containers.json")["files"]
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 16x16"


def small(mode: str = "RGB", size: tuple[int, int] = (16, 8)) -> Image.Image:
    return Image.new(mode, size)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 16, height: int = 8) -> bytes:
    """A PNG by hand, with chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (height * (3 * width + 1)) if height < 1000 else b""))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["name"])
def test_vectors_containers(case: dict[str, Any]) -> None:
    info = read_picture(base64.b64decode(case["base64"]))
    assert info.infotext == case["read"]["infotext"]
    assert set(info.items) == set(case["read"]["items"])
    for key, value in case["read"]["items"].items():
        if value != "bytes":
            assert info.items[key] == value


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300))
@settings(deadline=2000)
def test_our_png_gives_the_text_back(text: str) -> None:
    info = read_picture(encode_png(small(), text))
    assert info.infotext == text
    assert (info.width, info.height, info.format) == (16, 8, "PNG")


@pytest.mark.parametrize("text, kind", [("ünï café", b"tEXt"), ("日本語", b"iTXt")])
def test_the_chunk_is_the_one_a1111_writes(text: str, kind: bytes) -> None:
    data = encode_png(small(), text)
    assert kind + b"parameters\0" in data
    assert data.index(kind) < data.index(b"IDAT")


def test_pixels_are_kept_exactly() -> None:
    pixels = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
    image = Image.open(BytesIO(encode_png(Image.fromarray(pixels), "x")))
    assert np.array_equal(np.asarray(image), pixels)


def test_a_parsed_request_comes_with_the_text() -> None:
    info = read_picture(encode_png(small(), f"a cat\nNegative prompt: bad\n{LINE}"))
    assert info.request["prompt"] == "a cat"
    assert info.request["seed"] == 1


def test_a_picture_without_text_says_so() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        info = read_picture(saved(small(), kind))
        assert info.infotext is None
        assert info.request == {}
        assert "no generation text" in info.notes[0]


def test_other_text_is_shown_but_not_used() -> None:
    meta = PngImagePlugin.PngInfo()
    meta.add_text("Comment", "hello")
    meta.add_text("workflow", "w" * 200_000)
    info = read_picture(saved(small(), "PNG", pnginfo=meta))
    assert info.items["Comment"] == "hello"
    assert len(info.items["workflow"]) < 110_000
    assert info.infotext is None


def test_text_behind_the_pixels_is_found() -> None:
    data = png()
    text = chunk(b"tEXt", f"parameters\0late\n{LINE}".encode("latin-1"))
    late = data[: data.index(b"IEND") - 4] + text + chunk(b"IEND", b"")
    assert read_picture(late).request["prompt"] == "late"


@pytest.mark.parametrize(
    "code, encoding",
    [(b"UNICODE\0", "utf-16-le"), (b"UNICODE\0", "utf-16-be"), (b"ASCII\0\0\0", "ascii"), (b"\0" * 8, "utf-8")],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_user_comments_in_all_their_codes(code: bytes, encoding: str, kind: str) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: code + f"a cat\n{LINE}".encode(encoding)}
    info = read_picture(saved(small(), kind, exif=exif.tobytes()))
    assert info.infotext == f"a cat\n{LINE}"


def with_hidden(text: bytes, signature: str, mode: str) -> bytes:
    """Stealth text, written bit by bit as the format says."""
    payload = signature.encode() + struct.pack(">I", 8 * len(text)) + text
    bits = [byte >> shift & 1 for byte in payload for shift in range(7, -1, -1)]
    image = Image.new(mode, (64, 64), (255,) * len(mode))
    access = image.load()
    assert access is not None
    channels = [3] if mode == "RGBA" and "rgb" not in signature else [0, 1, 2]
    places = [(x, y, c) for x in range(64) for y in range(64) for c in channels]
    for (x, y, c), bit in zip(places, bits, strict=False):
        pixel = list(access[x, y])
        pixel[c] = pixel[c] & ~1 | bit
        access[x, y] = tuple(pixel)
    return saved(image, "PNG")


@pytest.mark.parametrize("signature", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"])
def test_hidden_text_is_read(signature: str) -> None:
    text = f"日本語 cat\n{LINE}"
    payload = gzip.compress(text.encode()) if signature.endswith("comp") else text.encode()
    mode = "RGB" if "rgb" in signature else "RGBA"
    assert read_picture(with_hidden(payload, signature, mode)).infotext == text


def test_a_hidden_bomb_or_rubbish_is_no_text() -> None:
    assert read_picture(with_hidden(b"not gzip", "stealth_pngcomp", "RGBA")).infotext is None
    bomb = gzip.compress(b"\xff" * 30_000_000, 9)[:400]
    assert read_picture(with_hidden(bomb, "stealth_pngcomp", "RGBA")).infotext is None


DAMAGED = {
    "empty": b"",
    "text": b"hello, I am no picture",
    "html": b"<html><script>alert(1)</script></html>",
    "signature only": b"\x89PNG\r\n\x1a\n",
    "psd": b"8BPS\0\1" + b"\0" * 40,
    "bmp": saved(small(), "BMP"),
    "tiff": saved(small(), "TIFF"),
    "ppm": saved(small(), "PPM"),
    "png cut in the pixels": saved(Image.effect_noise((64, 64), 50), "PNG")[:300],
    "png bomb": png(width=60_000, height=60_000),
    "png above the cap": png(width=10_000, height=7_000),
    "zero size": png(width=0, height=0),
    "bad crc": png().replace(b"IHDR\0\0\0\x10", b"IHDR\0\0\0\x11"),
    "text bomb": png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000, 9))),
    "plain 2 MB text": png(chunk(b"tEXt", b"parameters\0" + b"a" * 2_000_000)),
    "text just too long": encode_png(small(), "a" * (MAX_INFOTEXT + 1)),
    "truncated jpeg header": saved(small(), "JPEG")[:10],
    "truncated webp": saved(small(), "WEBP")[:20],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_bad_file_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(DamagedFile) as caught:
        read_picture(DAMAGED[name])
    assert caught.value.message.endswith(".")
    assert caught.value.field == "image"


SOUND = [encode_png(small("RGBA"), f"a\n{LINE}"), *(base64.b64decode(case["base64"]) for case in FILES)]


@given(st.sampled_from(SOUND), st.data())
@settings(deadline=2000, max_examples=200)
def test_a_broken_file_is_read_or_refused(data: bytes, how: st.DataObject) -> None:
    cut = how.draw(st.integers(0, len(data)))
    place = how.draw(st.integers(0, len(data) - 1))
    flipped = bytes([data[place] ^ how.draw(st.integers(1, 255))])
    for broken in (data[:cut], data[:place] + flipped + data[place + 1 :]):
        with suppress(DamagedFile):
            read_picture(broken)
