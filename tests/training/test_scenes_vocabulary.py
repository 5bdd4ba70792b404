"""The tables: enough of everything, no word for two things, and the visibility table true to the drawn colours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from studio.training.counter import generator
from studio.training.data.scenes.canvas import LIGHTS
from studio.training.data.scenes.glyphs import FONT_PATH, GlyphAtlas
from studio.training.data.scenes.places import paint_place
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURLESS_STYLES,
    COLOURS,
    COUNT_WORDS,
    DEFAULT_BACKGROUNDS,
    DEFAULT_PLACE,
    HIDES,
    OBJECTS,
    PLACES,
    RELATIONS,
    SIZE_WORDS,
    SIZES,
    STYLE_LEADS,
    STYLES,
    TIMES,
    Place,
    plural,
)

needs_font = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
JUST_SEEN = 18
"""A difference in L*a*b* that nobody misses."""
STRIKING = 40
"""One that leaps to the eye."""


def lab(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """sRGB 0..255 -> CIE L*a*b* (D65)."""
    channels = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(channels > 0.04045, ((channels + 0.055) / 1.055) ** 2.4, channels / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_there_is_enough_of_everything() -> None:
    assert 110 <= len(OBJECTS) <= 120
    assert len(COLOURS) == len(BACKGROUNDS) == 10
    assert len(PLACES) >= 12
    assert len(TIMES) >= 3 and len(STYLES) >= 6
    assert set(COUNT_WORDS) == {2, 3, 4} and set(RELATIONS) == {"left", "right", "above", "below", "on", "and"}
    assert len({kind.glyph for kind in OBJECTS if kind.glyph}) == len([kind for kind in OBJECTS if kind.glyph])


def test_no_noun_names_two_objects_or_anything_else() -> None:
    others = {*COLOURS, *BACKGROUNDS, *TIMES, *STYLES, *RELATIONS, "grey"}
    others |= {place.name for place in PLACES} | {word for words in SIZE_WORDS.values() for word in words}
    others |= {phrase for words in (*TIMES.values(), *STYLES.values()) for phrase in words}
    seen: dict[str, str] = {}
    for kind in OBJECTS:
        for word in {*kind.words, *kind.plurals}:
            assert word not in others
            assert seen.setdefault(word, kind.name) == kind.name
            assert not set(word.split()) & set(COLOURS)


def test_no_phrase_means_two_things() -> None:
    tables: list[dict[str, tuple[str, ...]]] = [
        {place.name: place.phrases for place in PLACES},
        TIMES,
        SIZE_WORDS,
        RELATIONS,
        {name: (*STYLES[name], *STYLE_LEADS[name]) for name in STYLES},
    ]
    meaning: dict[str, str] = {}
    for table in tables:
        for name, phrases in table.items():
            assert phrases
            for phrase in phrases:
                assert meaning.setdefault(phrase, name) == name


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("fox", "foxes"),
        ("kitten", "kittens"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("church", "churches"),
        ("bus", "buses"),
        ("toy", "toys"),
        ("cactus", "cacti"),
        ("octopus", "octopuses"),
        ("fish", "fish"),
        ("leaf", "leaves"),
        ("snowman", "snowmen"),
        ("slice of pizza", "slices of pizza"),
        ("t-shirt", "t-shirts"),
    ],
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many


def test_the_tables_agree_with_each_other() -> None:
    names = {place.name for place in PLACES}
    assert set(HIDES) <= {*BACKGROUNDS, *names, *TIMES}
    assert {colour for colours in HIDES.values() for colour in colours} <= {*COLOURS, "gray"}
    assert {kind.natural for kind in OBJECTS} <= {"", "gray", *COLOURS}
    assert all(kind.natural in COLOURS for kind in OBJECTS if kind.is_shape)
    assert set(DEFAULT_BACKGROUNDS) <= set(BACKGROUNDS) and DEFAULT_PLACE in names
    assert set(STYLE_LEADS) == set(STYLES) and set(COLOURLESS_STYLES) < set(STYLES)
    assert set(SIZES) == {"", *SIZE_WORDS} and set(LIGHTS) == set(TIMES)


def test_any_two_things_find_a_background_that_shows_both() -> None:
    """As many unnamed backgrounds as can be ruled out, and one more."""
    assert len(DEFAULT_BACKGROUNDS) == 3
    hidden = [colour for name in DEFAULT_BACKGROUNDS for colour in HIDES[name]]
    assert len(hidden) == len(set(hidden))


def test_a_colour_is_still_its_own_in_every_light_that_shows_it() -> None:
    names, tones = list(COLOURS), lab(list(COLOURS.values()))
    for time, light in LIGHTS.items():
        for name in names:
            if name in HIDES.get(time, ()):
                continue
            seen = lab(light.softened().on(np.array(COLOURS[name], dtype=np.float32)))
            nearest = names[int(np.linalg.norm(tones - seen, axis=1).argmin())]
            assert nearest == name or nearest in HIDES[time], (time, name, nearest)


@needs_font
def test_glyphs_are_seen_on_every_background_that_does_not_hide_them_and_not_on_the_others() -> None:
    atlas = GlyphAtlas()
    for kind in OBJECTS:
        pixels = np.asarray(atlas.cutout(kind, ""))
        solid = lab(pixels[pixels[..., 3] > 200][:, :3])
        for name, colour in BACKGROUNDS.items():
            difference = np.linalg.norm(solid - lab(colour), axis=1)
            if kind.natural in HIDES[name]:
                assert np.mean(difference > STRIKING) < 0.5, (kind.name, name)
            else:
                assert np.mean(difference > JUST_SEEN) > 0.33, (kind.name, name)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_coloured_things_are_seen_in_every_place_that_does_not_hide_them_and_not_in_the_others(place: Place) -> None:
    side = 48
    for time in ("", *TIMES) if place.has_times else ("",):
        picture = lab(np.asarray(paint_place(place.name, generator(0, place.name, 0), side, time)))
        behind = picture[side // 4 : side * 9 // 10, side // 4 : side * 3 // 4].reshape(-1, 3)
        for name, rgb in COLOURS.items():
            tone = np.array(rgb, dtype=np.float32)
            lit = lab(LIGHTS[time].softened().on(tone) if time else tone)
            difference = np.linalg.norm(behind - lit, axis=1)
            if name not in (*HIDES.get(place.name, ()), *HIDES.get(time, ())):
                assert np.mean(difference > JUST_SEEN) > 0.4, (time, name)
            elif not time:
                assert np.mean(difference > STRIKING) < 0.5, name


@needs_font
def test_no_two_objects_look_alike_in_one_colour() -> None:
    atlas, side = GlyphAtlas(), 40
    thumbnails = []
    for kind in OBJECTS:
        cutout = atlas.cutout(kind, "blue").copy()
        cutout.thumbnail((36, 36))
        canvas = Image.new("RGBA", (side, side), "white")
        canvas.alpha_composite(cutout, ((side - cutout.width) // 2, (side - cutout.height) // 2))
        thumbnails.append(np.asarray(canvas.convert("RGB"), dtype=np.float64).reshape(-1))
    stacked = np.stack(thumbnails)
    for number in range(1, len(OBJECTS)):
        distance = np.sqrt(np.square(stacked[:number] - stacked[number]).mean(axis=1))
        nearest = int(distance.argmin())
        assert distance[nearest] > 28, (OBJECTS[number].name, OBJECTS[nearest].name, distance[nearest])
