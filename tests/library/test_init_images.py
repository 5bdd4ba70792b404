"""Pictures to begin with: kept once, upright, on white, under names made of their pixels; found again or missed by name."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import studio.library.init_images as init_images_module
from studio.errors import DamagedFile, NotAllowed, StorageError, UnknownName
from studio.library.init_images import InitImages, open_init_image
from studio.schema.request import make_request

RNG = np.random.default_rng(3)


@pytest.fixture
def kept(tmp_path: Path) -> InitImages:
    return InitImages(tmp_path / "init-images", tmp_path / "waiting")


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 12, height: int = 8, mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, bands) if bands > 1 else (height, width)
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode)


def test_the_same_pixels_are_kept_once_whatever_file_they_came_in(kept: InitImages, tmp_path: Path) -> None:
    image = picture()
    first = kept.keep(file_of(image))
    again = kept.keep(file_of(image, "WEBP", lossless=True))
    assert first == again == kept.find(first.name)
    assert [path.name for path in (tmp_path / "waiting").iterdir()] == [f"{first.name}.png"]
    assert (first.width, first.height) == image.size
    assert first.md5 == hashlib.md5(image.tobytes()).hexdigest()
    assert open_init_image(first).tobytes() == image.tobytes()
    assert make_request({"source": {"image": first.name}}).source is not None


def test_bytes_of_another_shape_are_another_picture(kept: InitImages) -> None:
    names = {
        kept.keep(file_of(Image.new("RGB", (12, 8)))).name,
        kept.keep(file_of(Image.new("RGB", (8, 12)))).name,
        kept.keep_mask(file_of(Image.new("L", (12, 8)))).name,
    }
    assert len(names) == 3


def test_a_photograph_is_turned_upright(kept: InitImages) -> None:
    image, exif = picture(), Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    found = kept.keep(file_of(image, exif=exif))
    assert (found.width, found.height) == (8, 12)
    assert np.array_equal(np.asarray(open_init_image(found)), np.rot90(np.asarray(image), -1))


def test_what_is_transparent_lies_on_white(kept: InitImages) -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert open_init_image(kept.keep(file_of(image))).tobytes() == bytes((200, 0, 0, 255, 255, 255))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(kept: InitImages, mode: str) -> None:
    image = picture(mode="L").convert(mode) if mode != "I;16" else Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    found = open_init_image(kept.keep(file_of(image, "JPEG" if mode == "CMYK" else "PNG")))
    assert found.mode == "RGB"
    if mode == "I;16":
        assert found.getpixel((0, 0)) == (128, 128, 128)


def test_a_mask_is_its_brightness_or_what_is_opaque(kept: InitImages) -> None:
    grey = picture(mode="L")
    assert open_init_image(kept.keep_mask(file_of(grey))).tobytes() == grey.tobytes()
    layer = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    assert open_init_image(kept.keep_mask(file_of(layer))).tobytes() == bytes((0, 0)), "opaque all over: its brightness"
    layer.putpixel((1, 0), (9, 9, 9, 40))
    assert open_init_image(kept.keep_mask(file_of(layer))).tobytes() == bytes((255, 40))


def test_what_is_held_stays_and_the_oldest_of_the_others_go(
    kept: InitImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init_images_module, "MAX_WAITING", 3)
    names = []
    for step in range(6):
        found = kept.keep(file_of(picture()))
        os.utime(found.path, (step, step))
        names.append(found.name)
        if step == 0:
            kept.hold(found.name)
            kept.hold("ab" * 16)  # of one that is not there nobody hears
    assert kept.find(names[0]).path == str(tmp_path / "init-images" / f"{names[0]}.png")
    for name in names[1:3]:
        with pytest.raises(UnknownName, match=name):
            kept.find(name)
    assert [kept.find(name).name for name in names[3:]] == names[3:]


def test_what_is_asked_for_is_not_the_oldest_any_more(kept: InitImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_images_module, "MAX_WAITING", 2)
    wanted, other = (kept.keep(file_of(picture())) for _ in range(2))
    for step, found in enumerate((wanted, other)):
        os.utime(found.path, (step, step))
    assert kept.find(wanted.name) == wanted
    kept.keep(file_of(picture()))
    assert kept.find(wanted.name) == wanted
    with pytest.raises(UnknownName):
        kept.find(other.name)


def test_what_is_held_already_is_not_kept_twice(kept: InitImages, tmp_path: Path) -> None:
    data = file_of(picture())
    kept.hold(kept.keep(data).name)
    (path,) = (tmp_path / "waiting").iterdir()
    path.unlink()
    assert kept.keep(data).path == str(tmp_path / "init-images" / path.name)
    assert list((tmp_path / "waiting").iterdir()) == []


@pytest.mark.parametrize("name", ["0" * 32, "ff" * 16])
def test_a_missing_picture_is_named(kept: InitImages, name: str) -> None:
    with pytest.raises(UnknownName, match=name):
        kept.find(name)


@pytest.mark.parametrize("name", ["../secret", "a/../../b", "C:x", ""])
def test_no_name_leads_out_of_the_folder(kept: InitImages, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(file_of(picture()))
    with pytest.raises((NotAllowed, UnknownName)):
        kept.find(name)


def test_a_changed_file_is_read_again(kept: InitImages, tmp_path: Path) -> None:
    found = kept.keep(file_of(picture()))
    Path(found.path).write_bytes(b"no picture")
    with pytest.raises(DamagedFile):
        kept.find(found.name)
    Path(found.path).unlink()
    with pytest.raises(DamagedFile, match=found.name):
        open_init_image(found)


@given(st.binary(max_size=60))
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    kept = InitImages(Path("/nowhere"), Path("/nowhere/waiting"))
    for keep in (kept.keep, kept.keep_mask):
        with pytest.raises(DamagedFile, match=r"no picture that can be read|damaged"):
            keep(data)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        InitImages(tmp_path / "kept", tmp_path / "file").keep(file_of(picture()))
