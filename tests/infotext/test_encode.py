"""Finished pictures as files of every format: the text comes back, pixels stay near, and what does not fit stays a PNG."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, features

from studio.infotext import encode_png, encode_saved, read_picture
from studio.infotext.exif import comment_block
from studio.schema.request import PictureFormat

TEXT = "a café, 日本語 😀\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"
LOSSY: list[PictureFormat] = ["jpg", "webp", "avif"]
NAMES = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF"}


def painted(mode: str = "RGB", size: tuple[int, int] = (64, 32)) -> bytes:
    return encode_png(Image.linear_gradient("L").resize(size).convert(mode), TEXT)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("wanted", LOSSY)
def test_the_text_comes_back(wanted: PictureFormat, mode: str) -> None:
    file = encode_saved(painted(mode), TEXT, wanted, 90)
    assert (file.suffix, file.warning) == (f".{wanted}", None)
    info = read_picture(file.data)
    assert (info.infotext, info.format, info.width, info.height) == (TEXT, NAMES[wanted], 64, 32)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200))
@settings(deadline=2000, max_examples=50)
def test_any_text_with_parameters_survives_a_jpeg(prompt: str) -> None:
    text = f"{prompt}\nSteps: 20, Sampler: Euler a, CFG scale: 7"
    assert read_picture(encode_saved(encode_png(Image.new("RGB", (8, 8)), text), text, "jpg", 80).data).infotext == text


def test_the_comment_is_as_a1111_writes_it() -> None:
    with Image.open(BytesIO(encode_saved(painted(), "aé", "jpg", 80).data)) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0\0a\0\xe9"


def test_png_stays_as_it_is() -> None:
    png = painted()
    file = encode_saved(png, TEXT, "png", 80)
    assert (file.data, file.suffix, file.warning) == (png, ".png", None)


@pytest.mark.parametrize("wanted", LOSSY)
def test_quality_counts(wanted: PictureFormat) -> None:
    png = encode_png(Image.effect_noise((128, 128), 60).convert("RGB"), "")
    low, high = (encode_saved(png, "", wanted, quality).data for quality in (20, 95))
    assert len(low) < len(high)
    original, near = (np.asarray(Image.open(BytesIO(data)).convert("RGB"), dtype=float) for data in (png, high))
    assert np.abs(original - near).mean() < 12


@pytest.mark.parametrize(
    "wanted, size, limit",
    [("jpg", (65_536, 1), "65,500"), ("webp", (1, 16_384), "16,383"), ("avif", (65_536, 1), "65,535")],
)
def test_too_large_a_picture_stays_a_png(wanted: PictureFormat, size: tuple[int, int], limit: str) -> None:
    png = painted("L", size)
    file = encode_saved(png, TEXT, wanted, 80)
    assert (file.data, file.suffix) == (png, ".png")
    assert file.warning is not None
    assert f"{size[0]}x{size[1]}" in file.warning and limit in file.warning


@pytest.mark.parametrize("wanted, size", [("jpg", (65_500, 1)), ("webp", (16_383, 1))])
def test_the_largest_picture_fits(wanted: PictureFormat, size: tuple[int, int]) -> None:
    assert encode_saved(painted("L", size), TEXT, wanted, 80).warning is None


def test_too_long_a_text_stays_in_a_png() -> None:
    png = painted()
    file = encode_saved(png, "a" * 40_000, "jpg", 80)
    assert (file.data, file.suffix) == (png, ".png")
    assert "instead of JPEG" in (file.warning or "")
    assert encode_saved(png, "a" * 40_000, "webp", 80).warning is None


def test_no_encoder_stays_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    file = encode_saved(painted(), TEXT, "avif", 80)
    assert (file.suffix, "AVIF encoder" in (file.warning or "")) == (".png", True)


@pytest.mark.parametrize("broken", [b"", b"no picture", painted()[:60]])
def test_bytes_that_are_no_png_are_kept(broken: Any) -> None:
    file = encode_saved(broken, TEXT, "jpg", 80)
    assert (file.data, file.suffix) == (broken, ".png")
    assert file.warning is not None


def test_the_block_holds_nothing_else() -> None:
    exif = Image.Exif()
    exif.load(comment_block("x"))
    assert set(exif) == {ExifTags.IFD.Exif}
