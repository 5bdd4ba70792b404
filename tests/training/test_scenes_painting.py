"""Painting: deterministic, in the colours asked for, every row of every table drawn, light and styles that show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from studio.errors import TrainingError
from studio.training.counter import generator
from studio.training.data.scenes.canvas import LIGHTS, Canvas, Light, ramp
from studio.training.data.scenes.glyphs import FONT_PATH, GlyphAtlas, recolour
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.places import paint_place, paint_plain
from studio.training.data.scenes.scene import Scene, Thing, draw_scene
from studio.training.data.scenes.sheet import contact_sheet
from studio.training.data.scenes.sheet import main as sheet_main
from studio.training.data.scenes.styles import Parts, apply_style
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURLESS_STYLES,
    COLOURS,
    OBJECTS,
    PLACES,
    STYLES,
    Place,
)

KINDS = {kind.name: kind for kind in OBJECTS}
needs_font = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")


@pytest.fixture(scope="module")
def atlas() -> GlyphAtlas:
    return GlyphAtlas()


def difference(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    return float(np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean())


@needs_font
def test_the_same_scene_is_painted_the_same_and_in_the_size_asked(atlas: GlyphAtlas) -> None:
    other = GlyphAtlas()
    for index in range(24):
        scene = draw_scene(3, index)
        picture = paint_scene(scene, atlas, 3, index, 64)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, paint_scene(scene, other, 3, index, 64))


@needs_font
def test_every_object_is_drawn_and_no_two_alike(atlas: GlyphAtlas) -> None:
    pictures = {kind.name: paint_scene(Scene(Thing(kind), "gray"), atlas, 0, 0, 48).tobytes() for kind in OBJECTS}
    assert len(set(pictures.values())) == len(OBJECTS)


@needs_font
def test_every_object_lies_wholly_inside_the_picture(atlas: GlyphAtlas) -> None:
    """On a plain background the rim shows nothing of it, however large it is."""
    side = 64
    for kind in OBJECTS:
        scene = Scene(Thing(kind, "red"), "green", size="big")
        picture = paint_scene(scene, atlas, 1, 5, side).astype(float)
        for rim in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert np.abs(rim - np.array(BACKGROUNDS["green"])).max() < 15, kind.name


@needs_font
def test_a_coloured_object_has_its_colour_and_the_background_too(atlas: GlyphAtlas) -> None:
    for colour in ("blue", "red", "black"):
        picture = paint_scene(Scene(Thing(KINDS["circle"], colour), "yellow"), atlas, 1, 1).astype(int)
        assert np.abs(picture[64, 64] - COLOURS[colour]).max() < 40
        assert np.abs(picture[2, 2] - BACKGROUNDS["yellow"]).max() < 15


@needs_font
def test_recolouring_keeps_the_outline(atlas: GlyphAtlas) -> None:
    fox = atlas.cutout(KINDS["fox"], "")
    assert np.array_equal(np.asarray(recolour(fox, "green"))[..., 3], np.asarray(fox)[..., 3])


@needs_font
def test_outlines_are_those_of_the_cut_outs(atlas: GlyphAtlas) -> None:
    for name in ("car", "pencil", "giraffe", "heart"):
        cutout, outline = atlas.cutout(KINDS[name], ""), atlas.outline(KINDS[name])
        assert max(outline.width, outline.height) == 1
        assert outline.width / outline.height == pytest.approx(cutout.width / cutout.height)
    assert atlas.outline(KINDS["square"]).seat == 0
    assert 0.1 < atlas.outline(KINDS["cat"]).seat < 0.4  # between the ears


def test_a_missing_font_says_which_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fonts-noto-color-emoji"):
        GlyphAtlas(tmp_path / "none.ttf")


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_plain_background_is_one_colour(name: str) -> None:
    picture = np.asarray(paint_plain(BACKGROUNDS[name], generator(0, "test", 0), 32), dtype=int)
    assert np.abs(picture - np.array(BACKGROUNDS[name])).max() < 12


def test_places_differ_from_each_other_and_from_one_drawing_to_the_next() -> None:
    drawn = {place.name: np.asarray(paint_place(place.name, generator(0, "test", 0), 48)) for place in PLACES}
    for number, (name, picture) in enumerate(drawn.items()):
        assert not np.array_equal(picture, np.asarray(paint_place(name, generator(0, "test", 1), 48)))
        for other in list(drawn.values())[:number]:
            assert difference(picture, other) > 12


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(TrainingError, match="No place 'moonbase' can be drawn; known: beach, "):
        paint_place("moonbase", generator(0, "test", 0), 32)


@pytest.mark.parametrize("place", [place for place in PLACES if place.has_times], ids=lambda place: place.name)
def test_every_time_of_day_changes_a_place_as_it_should(place: Place) -> None:
    means = {
        time: np.asarray(paint_place(place.name, generator(0, "test", 0), 48, time), dtype=float).mean(axis=(0, 1))
        for time in ("", *LIGHTS)
    }
    assert means["night"].sum() < 0.6 * means[""].sum()
    assert means["night"][2] > means["night"][0]
    assert means["sunset"][0] > means["sunset"][2] + 15
    assert means["dawn"].sum() > means["sunset"].sum() + 60


def test_light_follows_its_formula_and_is_softer_on_things() -> None:
    light = Light((0.5, 1.0, 0.2), (200, 0, 100), 0.25, ((0, 0, 0),))
    seen = light.on(np.array([[100, 40, 200]], dtype=np.float32))
    assert np.allclose(seen, [[0.75 * 50 + 50, 30, 0.75 * 40 + 25]])
    soft = light.softened().on(np.array([100, 40, 200], dtype=np.float32))
    assert ((soft > np.minimum(seen[0], (100, 40, 200))) & (soft < np.maximum(seen[0], (100, 40, 200)))).all()


@needs_font
def test_the_light_of_the_time_falls_on_the_object(atlas: GlyphAtlas) -> None:
    day, night = (
        paint_scene(Scene(Thing(KINDS["square"], "red"), "grass", time=time), atlas, 2, 0).astype(float)
        for time in ("", "night")
    )
    middle = slice(52, 76)
    assert night[middle, middle].mean() < 0.85 * day[middle, middle].mean()
    assert night[middle, middle, 0].mean() > 2 * night[middle, middle, 2].mean()


def test_a_ramp_meets_its_colours() -> None:
    picture = np.asarray(ramp([(0, 0, 0), (100, 0, 0), (100, 200, 0)], 101, 0.5))
    assert tuple(picture[0, 0]) == (0, 0, 0)
    assert tuple(picture[25, 7]) == (100, 0, 0)
    assert tuple(picture[50, 0]) == tuple(picture[100, 100]) == (100, 200, 0)


def test_canvas_shapes_have_their_place_and_colour() -> None:
    canvas = Canvas(generator(0, "test", 0), 40, "")
    canvas.rectangle(0, 0, 1, 1, (0, 0, 0))
    canvas.ellipse(0.25, 0.25, 0.2, 0.2, (250, 0, 0))
    canvas.rectangle(0.5, 0.5, 1, 1, (0, 0, 250))
    picture = np.asarray(canvas.finished())
    assert picture.shape == (40, 40, 3)
    assert tuple(picture[10, 10]) == (250, 0, 0) and tuple(picture[30, 30]) == (0, 0, 250)
    assert tuple(picture[30, 10]) == (0, 0, 0)
    red = picture[..., 0].astype(float).sum() / 250
    assert red == pytest.approx(np.pi * 8**2, rel=0.15)


def parts(background: int = 200, tone: tuple[int, int, int] = (200, 40, 40), side: int = 64) -> Parts:
    """A disc on a plain background."""
    things = Image.new("RGBA", (side, side))
    ImageDraw.Draw(things).ellipse((side // 4, side // 4, side * 3 // 4, side * 3 // 4), fill=(*tone, 255))
    return Parts(
        Image.new("RGB", (side, side), (background,) * 3),
        Image.new("L", (side, side)),
        things,
        generator(0, "test", 0),
    )


def test_no_style_pastes_the_things_over_the_shadow() -> None:
    given = parts()
    given.shadow.paste(128, (0, 48, 64, 64))
    picture = np.asarray(apply_style(given, ""))
    assert tuple(picture[32, 32]) == (200, 40, 40) and tuple(picture[5, 5]) == (200, 200, 200)
    assert picture[60, 5].mean() == pytest.approx((200 + 23) / 2, abs=3)


@needs_font
def test_every_style_differs_clearly_from_none_and_from_every_other(atlas: GlyphAtlas) -> None:
    for index, (name, background) in enumerate((("fox", "white"), ("heart", "yellow"), ("castle", "grass"))):
        scene = Scene(Thing(KINDS[name]), background)
        seen: list[npt.NDArray[np.uint8]] = []
        for style in ("", *STYLES):
            picture = paint_scene(Scene(scene.main, background, style=style), atlas, 0, index)
            for other in seen:
                assert difference(picture, other) > 1, (name, style)
            seen.append(picture)


def test_colourless_styles_are_gray() -> None:
    for style in STYLES:
        picture = np.asarray(apply_style(parts(), style), dtype=int)
        spread = (picture.max(axis=-1) - picture.min(axis=-1)).max()
        assert (spread == 0) == (style in COLOURLESS_STYLES), style


def test_pixel_art_is_made_of_equal_cells_of_few_colours() -> None:
    picture = np.asarray(apply_style(parts(side=128), "pixel art"))
    cells = picture.reshape(32, 4, 32, 4, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= 24


def test_a_flat_picture_has_few_tones_and_a_hard_shadow_to_the_lower_right() -> None:
    picture = np.asarray(apply_style(parts(), "flat"), dtype=int)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= 24
    assert picture[52, 52].mean() < 0.7 * picture[12, 12].mean()
    assert picture[12, 52].mean() == picture[52, 12].mean() == 200


def test_a_sticker_has_a_white_rim_and_a_soft_shadow() -> None:
    picture = np.asarray(apply_style(parts(), "sticker"), dtype=int)
    assert tuple(picture[32, 14]) == (255, 255, 255) and tuple(picture[32, 32]) == (200, 40, 40)
    assert picture[47, 47].mean() < 190 and tuple(picture[3, 3]) == (200, 200, 200)


def test_a_watercolour_leaves_the_paper_white_at_the_edge() -> None:
    picture = np.asarray(apply_style(parts(background=90), "watercolour"), dtype=int)
    rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert rim.min() > 230 and picture[16, 16].mean() < 190
    red = picture[28:36, 28:36].mean(axis=(0, 1))
    assert red[0] > red[1] + 80


def test_a_sketch_draws_the_outline_even_of_a_white_thing_on_white() -> None:
    picture = np.asarray(apply_style(parts(background=250, tone=(250, 250, 250)), "pencil sketch"), dtype=int)
    assert picture[32, 15:18].min() < 120 and picture[32, 32].min() > 230 and picture[4, 4].min() > 230


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(TrainingError, match="No style 'oil' can be painted; known: flat, "):
        apply_style(parts(), "oil")


def test_a_contact_sheet_shows_every_picture_in_its_place() -> None:
    pictures = [np.full((32, 32, 3), tone, dtype=np.uint8) for tone in (10, 60, 110, 160, 210)]
    sheet = np.asarray(contact_sheet([f"number {n}" for n in range(5)], pictures, columns=2))
    width, height = sheet.shape[1] // 2, sheet.shape[0] // 3
    for number, picture in enumerate(pictures):
        top, left = number // 2 * height + 4, number % 2 * width + 4
        assert np.array_equal(sheet[top : top + 32, left : left + 32], picture)
    assert (sheet[-height + 36 :, 4 : width - 4] < 128).any()


@needs_font
def test_the_sheet_command_writes_a_picture(tmp_path: Path) -> None:
    assert sheet_main([str(tmp_path / "sheet.png"), "--count", "3", "--side", "32"]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * 40
