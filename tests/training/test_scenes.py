"""The drawn scenes: same picture and caption for the same (seed, index), and nothing held out ever trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio.errors import TrainingError
from studio.training.counter import batch_indices, generator
from studio.training.data.scenes.captions import plain_caption, write_caption
from studio.training.data.scenes.glyphs import FONT_PATH, GlyphAtlas, recolour
from studio.training.data.scenes.holdout import is_held_out
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, Thing, draw_scene
from studio.training.data.scenes.vocabulary import BACKGROUNDS, COLOURS, OBJECTS, PLACES, STYLES

KINDS = {kind.name: kind for kind in OBJECTS}
needs_font = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")


def test_the_same_seed_and_index_give_the_same_scene_and_captions() -> None:
    for index in range(50):
        first, second = draw_scene(7, index), draw_scene(7, index)
        assert first == second
        words = [write_caption(first, generator(7, "caption", index)) for _ in range(2)]
        assert words[0] == words[1]
    assert len({draw_scene(seed, 3) for seed in range(30)}) > 20


def test_training_never_sees_a_held_out_combination() -> None:
    scenes = [draw_scene(1, index) for index in range(3000)]
    assert not [scene for scene in scenes if any(is_held_out(*pair) for pair in scene.pairs())]


def test_held_out_scenes_hold_at_least_one_such_combination() -> None:
    for index in range(200):
        scene = draw_scene(1, index, held_out=True)
        assert any(is_held_out(*pair) for pair in scene.pairs())


def test_about_a_tenth_of_all_combinations_is_held_out_and_it_is_symmetric_in_partners() -> None:
    pairs = [(kind.name, colour) for kind in OBJECTS for colour in COLOURS]
    share = np.mean([is_held_out("colour", *pair) for pair in pairs])
    assert 0.06 < share < 0.14
    assert is_held_out("partner", "fox", "cat") == is_held_out("partner", "cat", "fox")


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [("colour", "fox", "red"), ("background", "fox", "beach"), ("colour", "star", "blue"), ("colour", "heart", "red")],
)
def test_the_manuals_examples_are_trained_on(kind: str, first: str, second: str) -> None:
    assert not is_held_out(kind, first, second)  # type: ignore[arg-type]


def test_the_mix_is_mostly_single_objects_half_of_them_plain() -> None:
    scenes = [draw_scene(2, index) for index in range(2000)]
    single = [scene for scene in scenes if scene.partner is None and scene.count == 1]
    assert len(single) > 0.7 * len(scenes)
    assert 0.4 < np.mean([not scene.in_place for scene in single]) < 0.6
    assert 0.15 < np.mean([scene.main.kind.is_shape for scene in single]) < 0.25
    assert {scene.count for scene in scenes} == {1, 2, 3, 4}
    assert {scene.style for scene in scenes} == {"", *STYLES}


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene(Thing(KINDS["fox"], "red"), "beach"), "a red fox on a beach"),
        (Scene(Thing(KINDS["fox"]), "snow"), "a fox in the snow"),
        (Scene(Thing(KINDS["heart"], "red"), named=False, count=2), "two red hearts"),
        (Scene(Thing(KINDS["star"], "blue"), "yellow"), "a blue star on a yellow background"),
        (Scene(Thing(KINDS["owl"]), "orange", size="small"), "a small owl on an orange background"),
        (
            Scene(Thing(KINDS["cat"]), named=False, partner=Thing(KINDS["apple"], "green"), relation="left"),
            "a cat to the left of a green apple",
        ),
        (Scene(Thing(KINDS["octopus"]), "sea", style="pixel art"), "an octopus in the sea, pixel art"),
    ],
)
def test_plain_captions_are_what_people_type(scene: Scene, caption: str) -> None:
    assert plain_caption(scene) == caption


def test_every_caption_names_object_colour_and_background() -> None:
    places = {place.name: place.phrases for place in PLACES}
    for index in range(600):
        scene = draw_scene(5, index)
        text = write_caption(scene, generator(5, "caption", index))
        nouns = (*scene.main.kind.words, scene.main.kind.many)
        assert any(word in text for word in nouns), text
        assert scene.main.colour in text
        if scene.named and scene.in_place:
            assert any(phrase in text for phrase in (*places[scene.background], scene.background)), text
        elif scene.named:
            assert scene.background in text.replace("grey", "gray"), text


@needs_font
def test_the_same_scene_is_painted_the_same_and_in_the_size_asked() -> None:
    atlas, other = GlyphAtlas(), GlyphAtlas()
    for index in range(12):
        scene = draw_scene(3, index)
        picture = paint_scene(scene, atlas, 3, index, 64)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert np.array_equal(picture, paint_scene(scene, other, 3, index, 64))


@needs_font
def test_every_object_and_every_background_can_be_painted() -> None:
    atlas = GlyphAtlas()
    plain = paint_scene(Scene(Thing(KINDS["circle"], "red")), atlas, 0, 0, 64)
    for kind in OBJECTS:
        assert not np.array_equal(paint_scene(Scene(Thing(kind)), atlas, 0, 0, 64), plain)
    for name in [*BACKGROUNDS, *(place.name for place in PLACES)]:
        paint_scene(Scene(Thing(KINDS["circle"], "red"), name), atlas, 0, 0, 64)
    for style in STYLES:
        assert not np.array_equal(
            paint_scene(Scene(Thing(KINDS["circle"], "red"), style=style), atlas, 0, 0, 64), plain
        )


@needs_font
def test_a_coloured_object_has_its_colour_and_the_background_too() -> None:
    picture = paint_scene(Scene(Thing(KINDS["circle"], "blue"), "yellow"), GlyphAtlas(), 1, 1).astype(int)
    assert np.abs(picture[64, 64] - COLOURS["blue"]).max() < 40
    assert np.abs(picture[2, 2] - BACKGROUNDS["yellow"]).max() < 15


@needs_font
def test_recolouring_keeps_the_outline() -> None:
    fox = GlyphAtlas().cutout(KINDS["fox"], "")
    assert np.array_equal(np.asarray(recolour(fox, "green"))[..., 3], np.asarray(fox)[..., 3])


def test_a_missing_font_says_which_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fonts-noto-color-emoji"):
        GlyphAtlas(tmp_path / "none.ttf")


def test_an_unnamed_background_is_the_default_in_most_pictures() -> None:
    unnamed = [scene for scene in (draw_scene(4, index) for index in range(2000)) if not scene.named]
    assert np.mean([scene.background == "white" for scene in unnamed]) > 0.7
    assert replace(unnamed[0], named=True).named


def test_each_pass_over_the_pool_sees_every_item_once_in_a_new_order() -> None:
    first, second = batch_indices(1, "x", 0, 50, 50), batch_indices(1, "x", 50, 50, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    pieces = np.concatenate([batch_indices(1, "x", start, 7, 50) for start in range(0, 98, 7)])
    assert np.array_equal(pieces[:50], first) and np.array_equal(pieces[50:98], second[:48])
