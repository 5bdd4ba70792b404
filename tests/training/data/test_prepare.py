"""Sizes, buckets and the wording of a draw, against closed forms and rules that must hold for all inputs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studio.errors import InvalidRequest
from studio.schema.training_data import DatasetSettings, make_dataset_settings
from studio.training.counter import generator
from studio.training.data.dataset import Item
from studio.training.data.prepare import (
    bucket_of,
    buckets,
    caption_for,
    fitted,
    shuffled,
    target_size,
    with_trigger,
)
from studio.training.data.sources import FileSource


def item(*captions: str) -> Item:
    return Item("0" * 64, "a.png", captions, 1, (64, 64), FileSource(Path("a.png")))


def wordings(settings: DatasetSettings, *captions: str, count: int = 2000) -> list[str]:
    return [caption_for(item(*captions), settings, generator(5, "caption", position)) for position in range(count)]


def test_values_are_in_minus_one_to_one() -> None:
    picture = Image.new("RGB", (10, 10))
    picture.putdata([(0, 128, 255)] * 100)
    values = fitted(picture, 10, 10)
    assert (values.shape, values.dtype) == ((3, 10, 10), np.float32)
    assert values.flags["C_CONTIGUOUS"]
    assert np.allclose(values[:, 4, 4], [-1, 128 / 127.5 - 1, 1], atol=1e-6)


def test_nothing_changes_where_nothing_needs_to() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 16, 3), np.uint8)
    values = fitted(Image.fromarray(noise), 16, 24)
    assert np.array_equal(np.round((values + 1) * 127.5).astype(np.uint8), noise.transpose(2, 0, 1))
    mirrored = fitted(Image.fromarray(noise), 16, 24, flipped=True)
    assert np.array_equal(mirrored, values[:, :, ::-1])


def test_the_middle_is_kept() -> None:
    """A picture of three equal stripes, three times as wide as high: the square in its middle is the middle stripe."""
    stripes = np.zeros((50, 150, 3), np.uint8)
    stripes[:, 50:100] = (10, 200, 30)
    values = fitted(Image.fromarray(stripes), 32, 32)
    inner = np.round((values[:, :, 4:-4] + 1) * 127.5)
    assert np.array_equal(inner, np.broadcast_to(np.array([10, 200, 30])[:, None, None], inner.shape))
    upright = fitted(Image.fromarray(stripes.transpose(1, 0, 2).copy()), 32, 32)
    assert np.allclose(upright, values.transpose(0, 2, 1), atol=1e-6)


@pytest.mark.parametrize("source, target", [((256, 256), (64, 64)), ((300, 200), (96, 64)), ((40, 40), (64, 64))])
def test_scaling_a_ramp_keeps_the_ramp(source: tuple[int, int], target: tuple[int, int]) -> None:
    """Along a linear ramp a resampling filter gives the value at the centre of each new pixel."""
    width, height = source
    ramp = np.linspace(20, 230, width)
    picture = Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)).round().astype(np.uint8))
    values = (fitted(picture, *target)[0, target[1] // 2] + 1) * 127.5
    scale = max(target[0] / width, target[1] / height)
    centres = (np.arange(target[0]) + 0.5) / scale + (width - target[0] / scale) / 2 - 0.5
    expected = 20 + centres * (210 / (width - 1))
    assert np.abs(values - expected)[6:-6].max() < 1.5


@given(width=st.integers(8, 400), height=st.integers(8, 400), across=st.integers(1, 40), down=st.integers(1, 40))
def test_any_size_is_brought_to_any_size(width: int, height: int, across: int, down: int) -> None:
    values = fitted(Image.new("RGB", (width, height), (255, 0, 51)), across * 8, down * 8)
    assert values.shape == (3, down * 8, across * 8)
    assert np.allclose(values, np.array([1, -1, 51 / 127.5 - 1], np.float32)[:, None, None], atol=0.01)


@given(
    resolution=st.integers(8, 256).map(lambda n: n * 8),
    step=st.sampled_from([8, 16, 32, 64, 128]),
    ratio=st.floats(1, 8),
)
def test_buckets_keep_to_their_bounds(resolution: int, step: int, ratio: float) -> None:
    if resolution < step:
        with pytest.raises(InvalidRequest):
            make_dataset_settings({"buckets": True, "resolution": resolution, "bucket_step": step})
        return
    found = buckets(resolution, step, ratio)
    assert len(set(found)) == len(found)
    assert {(height, width) for width, height in found} == set(found)
    for width, height in found:
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        short, long = sorted((width, height))
        assert long <= max(short * ratio, short)
        square = width == height
        assert square or short * (long + step) > resolution**2, "as large as the width allows"


def test_buckets_of_stable_diffusion() -> None:
    """512 squared in steps of 64 and shapes up to 1:2; counted by hand."""
    expected = {(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)}
    assert expected <= set(buckets(512, 64, 2.0))
    assert (256, 1024) not in buckets(512, 64, 2.0)
    assert (320, 768) in buckets(512, 64, 2.5)


@pytest.mark.parametrize(
    "size, expected",
    [
        ((512, 512), (512, 512)),
        ((1000, 1010), (512, 512)),
        ((4000, 2250), (640, 384)),
        ((2250, 4000), (384, 640)),
        ((640, 480), (576, 448)),
        ((10_000, 100), (1024, 256)),
    ],
)
def test_the_nearest_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert bucket_of(size, 512) == expected


@given(st.integers(8, 10_000), st.integers(8, 10_000))
def test_no_bucket_is_nearer(width: int, height: int) -> None:
    chosen = bucket_of((width, height), 512, step=64, ratio=3)
    shape = width / height
    distance = abs(math.log(chosen[0] / chosen[1] / shape))
    assert all(abs(math.log(w / h / shape)) >= distance - 1e-9 for w, h in buckets(512, 64, 3))


def test_without_buckets_all_is_square() -> None:
    assert target_size((1000, 200), DatasetSettings(resolution=256)) == (256, 256)
    assert target_size((1000, 200), DatasetSettings(resolution=256, buckets=True)) == bucket_of((1000, 200), 256)


PARTS = st.lists(st.text(st.characters(blacklist_characters=",", blacklist_categories=["Cs", "Cc"]), min_size=1)
                 .map(str.strip).filter(bool), max_size=12)  # fmt: skip


@given(parts=PARTS, keep=st.integers(0, 14), position=st.integers(0, 10**9))
def test_shuffling_keeps_the_parts_and_the_first_in_place(parts: list[str], keep: int, position: int) -> None:
    result = shuffled(", ".join(parts), keep, generator(1, "caption", position))
    found = result.split(", ") if result else []
    assert sorted(found) == sorted(parts)
    assert found[:keep] == parts[:keep]


def test_shuffling_reaches_every_order() -> None:
    settings = DatasetSettings(shuffle=True, keep_tokens=1, caption_dropout=0)
    found = wordings(settings, "a,b,,c , d")
    assert set(found) == {"a, " + ", ".join(rest) for rest in itertools.permutations("bcd")}
    assert all(250 < found.count(wording) < 420 for wording in set(found))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_share_that_is_dropped(share: float) -> None:
    settings = DatasetSettings(caption_dropout=share, trigger="sks")
    found = wordings(settings, "a fox")
    deviation = math.sqrt(share * (1 - share) / len(found))
    assert abs(found.count("") / len(found) - share) <= 4 * deviation
    assert set(found) <= {"", "sks, a fox"}


def test_each_of_several_captions_is_drawn_alike() -> None:
    found = wordings(DatasetSettings(caption_dropout=0), "a", "b", "c", "d", "e")
    assert all(320 < found.count(caption) < 480 for caption in "abcde")


def test_the_wording_is_a_function_of_seed_and_position() -> None:
    settings = DatasetSettings(shuffle=True, caption_dropout=0.3)
    captions = ("a, b, c, d", "e, f, g")
    first = wordings(settings, *captions, count=50)
    assert first == wordings(settings, *captions, count=50)
    backwards = [caption_for(item(*captions), settings, generator(5, "caption", n)) for n in reversed(range(50))]
    assert first == backwards[::-1]
    assert first != [caption_for(item(*captions), settings, generator(6, "caption", n)) for n in range(50)]


def test_one_setting_leaves_the_other_choices_alone() -> None:
    plain = wordings(DatasetSettings(caption_dropout=0), "a", "b", count=200)
    dropped = wordings(DatasetSettings(caption_dropout=0.4), "a", "b", count=200)
    assert all(wording in ("", before) for wording, before in zip(dropped, plain, strict=True))
    more = wordings(DatasetSettings(caption_dropout=0.6), "a", "b", count=200)
    assert all(not wording for wording, before in zip(more, dropped, strict=True) if not before)


@pytest.mark.parametrize(
    "caption, trigger, expected",
    [
        ("a fox", "", "a fox"),
        ("a fox", "sks", "sks, a fox"),
        ("", "sks", "sks"),
        ("a sks fox", "sks", "a sks fox"),
        ("sks", "sks", "sks"),
        ("asks a fox", "sks", "sks, asks a fox"),
        ("asks sks", "sks", "asks sks"),
        ("a fox", " my  style ", "my style, a fox"),
        ("a (sks:1.2) fox", "sks", "a (sks:1.2) fox"),
    ],
)
def test_the_trigger(caption: str, trigger: str, expected: str) -> None:
    assert with_trigger(caption, trigger) == expected


def test_the_trigger_stays_in_front_of_a_shuffled_caption() -> None:
    settings = DatasetSettings(shuffle=True, trigger="sks", caption_dropout=0)
    assert all(wording.startswith("sks, ") for wording in wordings(settings, "a, b, c", count=100))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"resolution": 20}, "multiple of 8"),
        ({"resolution": 4096}, "2048"),
        ({"caption_dropout": 1.5}, "caption_dropout = 1.5"),
        ({"keep_tokens": -1}, "keep_tokens"),
        ({"caption_source": "psychic"}, "file_name"),
        ({"trigger": "a\nb"}, "one line"),
        ({"colour": 1}, "colour"),
        ({"repeats": 0}, "repeats = 0"),
    ],
)
def test_settings_outside_their_bounds(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_dataset_settings(fields)
    assert said in caught.value.message
