"""The drawn scenes: same scene and caption for the same (seed, index), and nothing held out ever trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from studio.training.counter import batch_indices, generator
from studio.training.data.scenes.captions import plain_caption, write_caption
from studio.training.data.scenes.holdout import is_held_out
from studio.training.data.scenes.scene import Scene, Thing, draw_scene, mirrored
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COARSE_STYLES,
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
    SKETCH,
    STYLE_LEADS,
    STYLES,
    TIMES,
)

KINDS = {kind.name: kind for kind in OBJECTS}
PLACE = {place.name: place for place in PLACES}
SCENES = [draw_scene(2, index) for index in range(4000)]
SINGLE = [scene for scene in SCENES if scene.partner is None and scene.count == 1]


def share(of: list[bool]) -> float:
    return float(np.mean(of))


def test_the_same_seed_and_index_give_the_same_scene_and_captions() -> None:
    for index in range(50):
        first, second = draw_scene(7, index), draw_scene(7, index)
        assert first == second
        words = [write_caption(first, generator(7, "caption", index)) for _ in range(2)]
        assert words[0] == words[1]
    assert len({draw_scene(seed, 3) for seed in range(30)}) > 20


def test_training_never_sees_a_held_out_combination() -> None:
    assert not [scene for scene in SCENES if any(is_held_out(*pair) for pair in scene.pairs())]


def test_held_out_scenes_hold_at_least_one_such_combination() -> None:
    for index in range(200):
        scene = draw_scene(1, index, held_out=True)
        assert any(is_held_out(*pair) for pair in scene.pairs())


def test_about_a_tenth_of_all_combinations_is_held_out_and_it_is_symmetric_in_partners() -> None:
    pairs = [(kind.name, colour) for kind in OBJECTS for colour in COLOURS]
    assert 0.06 < share([is_held_out("colour", *pair) for pair in pairs]) < 0.14
    assert is_held_out("partner", "fox", "cat") == is_held_out("partner", "cat", "fox")


@pytest.mark.parametrize(
    ("kind", "first", "second", "held_out"),
    [
        ("colour", "fox", "red", False),  # the manual's examples
        ("background", "fox", "beach", False),
        ("background", "fox", "forest", False),
        ("background", "fox", "night", False),
        ("background", "fox", "snow", False),
        ("colour", "star", "blue", False),
        ("colour", "heart", "red", False),
        ("background", "fox", "space", True),  # a few of the fixed list
        ("colour", "cat", "yellow", True),
        ("style", "heart", "pixel art", True),
        ("partner", "cat", "shoe", True),
    ],
)
def test_the_list_of_held_out_combinations_does_not_change(kind: str, first: str, second: str, held_out: bool) -> None:
    assert is_held_out(kind, first, second) == held_out  # type: ignore[arg-type]


def test_a_scene_is_held_out_by_each_of_its_combinations() -> None:
    scene = Scene(
        Thing(KINDS["fox"], "red"),
        "forest",
        partner=Thing(KINDS["owl"]),
        relation="left",
        style="pixel art",
        time="night",
    )
    assert set(scene.pairs()) == {
        ("colour", "fox", "red"),
        ("background", "fox", "forest"),
        ("background", "fox", "night"),
        ("style", "fox", "pixel art"),
        ("background", "owl", "forest"),
        ("background", "owl", "night"),
        ("style", "owl", "pixel art"),
        ("partner", "fox", "owl"),
    }


def test_the_mix_is_mostly_single_objects_half_of_them_plain() -> None:
    assert len(SINGLE) / len(SCENES) == pytest.approx(0.64, abs=0.03)
    assert share([scene.count > 1 for scene in SCENES]) == pytest.approx(0.12, abs=0.02)
    assert share([scene.partner is not None for scene in SCENES]) == pytest.approx(0.24, abs=0.03)
    assert share([not scene.in_place for scene in SINGLE]) == pytest.approx(0.5, abs=0.04)
    assert share([scene.main.kind.is_shape for scene in SINGLE]) == pytest.approx(0.18, abs=0.03)
    assert share([bool(scene.style) for scene in SCENES]) == pytest.approx(0.14, abs=0.03)
    assert share([bool(scene.time) for scene in SINGLE]) == pytest.approx(0.12, abs=0.03)


def test_every_word_of_every_table_is_drawn() -> None:
    assert {scene.main.kind.name for scene in SCENES} == set(KINDS)
    assert {scene.main.colour for scene in SCENES} == {"", *COLOURS}
    assert {scene.background for scene in SCENES} == {*BACKGROUNDS, *PLACE}
    assert {scene.time for scene in SCENES} == {"", *TIMES}
    assert {scene.count for scene in SCENES} == {1, *COUNT_WORDS}
    assert {scene.size for scene in SCENES} == {"", *SIZE_WORDS}
    assert {scene.style for scene in SCENES} == {"", *STYLES}
    relations = Counter(scene.relation for scene in SCENES if scene.partner)
    assert set(relations) == set(RELATIONS)
    assert max(relations.values()) < 2 * min(relations.values())


def test_pairs_come_with_their_mirror_image() -> None:
    pairs = [index for index, scene in enumerate(SCENES) if scene.partner]
    assert len({SCENES[index] for index in pairs}) > 0.9 * len(pairs)
    for index in pairs:
        assert SCENES[index ^ 1] == mirrored(SCENES[index])
    with pytest.raises(ValueError, match="'fox' alone"):
        mirrored(Scene(Thing(KINDS["fox"])))


def test_nothing_is_put_where_it_cannot_be_seen() -> None:
    for scene in SCENES:
        for thing in scene.things if scene.style != SKETCH else ():
            assert thing.shown_colour not in HIDES.get(scene.time, ())
            if scene.named:
                assert thing.shown_colour not in HIDES.get(scene.background, ())


def test_what_captions_do_not_name_is_always_the_same() -> None:
    unnamed = [scene for scene in SCENES if not scene.named]
    assert {scene.background for scene in unnamed if scene.time} == {DEFAULT_PLACE}
    by_day = [scene for scene in unnamed if not scene.time and scene.style != SKETCH]
    pale = [any(thing.shown_colour == DEFAULT_BACKGROUNDS[0] for thing in scene.things) for scene in by_day]
    assert any(pale) and not all(pale)
    for scene, has_pale in zip(by_day, pale, strict=True):
        assert scene.background in (DEFAULT_BACKGROUNDS[1:] if has_pale else DEFAULT_BACKGROUNDS[:1])


def test_times_of_day_are_only_told_of_places_under_the_open_sky() -> None:
    assert all(PLACE[scene.background].has_times for scene in SCENES if scene.time)
    assert {scene.background for scene in SCENES if scene.time} == {place.name for place in PLACES if place.has_times}


def test_styles_without_colour_are_not_asked_for_any() -> None:
    gray = [scene for scene in SCENES if scene.style in COLOURLESS_STYLES]
    assert gray
    for scene in gray:
        assert not any(thing.colour for thing in scene.things) and not scene.time
        assert scene.in_place or not scene.named or scene.background in COLOURLESS_STYLES[scene.style]


def test_small_things_are_only_shown_in_styles_that_keep_them() -> None:
    styles = {scene.style for scene in SINGLE if scene.size == "small"}
    assert styles > {""} and not styles & set(COARSE_STYLES)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene(Thing(KINDS["fox"], "red"), "beach"), "a red fox on a beach"),
        (Scene(Thing(KINDS["fox"]), "snow"), "a fox in the snow"),
        (Scene(Thing(KINDS["fox"]), "forest", time="night"), "a fox in a forest at night"),
        (Scene(Thing(KINDS["fox"]), DEFAULT_PLACE, named=False, time="sunset"), "a fox at sunset"),
        (Scene(Thing(KINDS["heart"], "red"), named=False, count=2), "two red hearts"),
        (Scene(Thing(KINDS["strawberry"]), "sea", count=3), "three strawberries in the sea"),
        (Scene(Thing(KINDS["star"], "blue"), "yellow"), "a blue star on a yellow background"),
        (Scene(Thing(KINDS["owl"]), "orange", size="small"), "a small owl on an orange background"),
        (
            Scene(Thing(KINDS["cat"]), named=False, partner=Thing(KINDS["apple"], "green"), relation="left"),
            "a cat to the left of a green apple",
        ),
        (
            Scene(Thing(KINDS["cat"]), "room", partner=Thing(KINDS["chair"]), relation="on"),
            "a cat on a chair in a room",
        ),
        (Scene(Thing(KINDS["octopus"]), "sea", style="pixel art"), "an octopus in the sea, pixel art"),
        (Scene(Thing(KINDS["unicorn"]), named=False), "a unicorn"),
        (Scene(Thing(KINDS["umbrella"]), named=False, style="sticker"), "an umbrella, sticker"),
    ],
)
def test_plain_captions_are_what_people_type(scene: Scene, caption: str) -> None:
    assert plain_caption(scene) == caption


def test_every_caption_names_all_that_is_asked_for() -> None:
    for index, scene in enumerate(SCENES[:1500]):
        text = write_caption(scene, generator(5, "caption", index))
        for thing in scene.things:
            nouns = thing.kind.plurals if scene.count > 1 else thing.kind.words
            assert any(noun in text for noun in nouns), text
            assert thing.colour in text
        assert any(word in text for word in SIZE_WORDS.get(scene.size, ("",))), text
        if scene.named and scene.in_place:
            assert any(known(phrase, text) for phrase in (*PLACE[scene.background].phrases, scene.background)), text
        elif scene.named:
            assert scene.background in text.replace("grey", "gray"), text
        if scene.time:
            assert any(known(phrase, text) for phrase in (*TIMES[scene.time], scene.time)), text
        if scene.style:
            assert any(word in text for word in (*STYLES[scene.style], *STYLE_LEADS[scene.style])), text


def known(phrase: str, text: str) -> bool:
    """Whether ``text`` has ``phrase``, with its articles or without any."""
    return phrase in text or " ".join(word for word in phrase.split() if word not in ("a", "an", "the")) in text


def test_every_caption_is_a_sentence_without_gaps() -> None:
    for index, scene in enumerate(SCENES[:1500]):
        text = write_caption(scene, generator(6, "caption", index))
        assert text == " ".join(text.split()) and text == text.lower()
        for slip in (" of on ", " of in ", " of at ", "a a", "a e", "a i", "a o", "an b", ",,", " ,"):
            assert f"{slip} " not in f" {text} " and not text.startswith(f"{slip[1:]} "), text


def test_most_captions_are_short() -> None:
    lengths = [len(write_caption(scene, generator(8, "caption", i)).split()) for i, scene in enumerate(SINGLE)]
    assert np.median(lengths) <= 6 and max(lengths) <= 20


def test_each_pass_over_the_pool_sees_every_item_once_in_a_new_order() -> None:
    first, second = batch_indices(1, "x", 0, 50, 50), batch_indices(1, "x", 50, 50, 50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    pieces = np.concatenate([batch_indices(1, "x", start, 7, 50) for start in range(0, 98, 7)])
    assert np.array_equal(pieces[:50], first) and np.array_equal(pieces[50:98], second[:48])
