"""Where things stand: the geometry that relations, counts and sizes promise, for outlines of any shape."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from studio.training.counter import choice, generator
from studio.training.data.scenes.layout import Outline, Placement, lay_out
from studio.training.data.scenes.scene import Relation, Scene, Thing
from studio.training.data.scenes.vocabulary import OBJECTS, PLACES, SIZES, ObjectKind

KINDS = {kind.name: kind for kind in OBJECTS}
BACKGROUNDS = ("white", *(place.name for place in PLACES))
GROUND = {place.name: place.ground for place in PLACES}
SHAPES = (Outline(1.0, 1.0, 0.0), Outline(1.0, 0.4, 0.05), Outline(0.35, 1.0, 0.0), Outline(0.9, 1.0, 0.3))
ROUNDS = range(40)
EACH_ROUND = pytest.mark.parametrize("number", ROUNDS)


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float


def box(placement: Placement, outline: Outline) -> Box:
    half_width, half_height = outline.width * placement.size / 2, outline.height * placement.size / 2
    return Box(placement.x - half_width, placement.y - half_height, placement.x + half_width, placement.y + half_height)


def pair(relation: Relation, number: int) -> tuple[Box, Box, Outline, Scene]:
    """Boxes of the main thing and of its partner, and the partner's outline."""
    rng = generator(1, f"layout/{relation}", number)
    outlines = {"cat": choice(rng, SHAPES), "car": choice(rng, SHAPES)}
    scene = Scene(Thing(KINDS["cat"]), choice(rng, BACKGROUNDS), partner=Thing(KINDS["car"]), relation=relation)
    placements = {p.thing.kind.name: p for p in lay_out(scene, lambda kind: outlines[kind.name], rng)}
    assert set(placements) == set(outlines)
    first, second = (box(placements[name], outlines[name]) for name in ("cat", "car"))
    return first, second, outlines["car"], scene


@EACH_ROUND
def test_left_and_right_and_in_reading_order(number: int) -> None:
    for relation in ("left", "right", "and"):
        first, second, _, _ = pair(relation, number)
        left, right = (second, first) if relation == "right" else (first, second)
        assert left.right < right.left + 0.03 and (left.left + left.right) / 2 < 0.5 < (right.left + right.right) / 2


@EACH_ROUND
def test_above_and_below_leave_a_gap(number: int) -> None:
    for relation in ("above", "below"):
        first, second, _, _ = pair(relation, number)
        upper, lower = (first, second) if relation == "above" else (second, first)
        assert 0.05 < lower.top - upper.bottom < 0.2
        assert abs((upper.left + upper.right) - (lower.left + lower.right)) / 2 < 0.15


@EACH_ROUND
def test_on_rests_on_the_seat(number: int) -> None:
    first, second, outline, _ = pair("on", number)
    seat = second.top + outline.seat / outline.height * (second.bottom - second.top)
    assert first.bottom == pytest.approx(seat + 0.015, abs=1e-6)
    assert (first.left + first.right) == pytest.approx(second.left + second.right, abs=0.05)


@EACH_ROUND
def test_nothing_reaches_over_the_edge(number: int) -> None:
    rng = generator(1, "layout/edge", number)
    outline, background = choice(rng, SHAPES), choice(rng, BACKGROUNDS)
    scenes = [Scene(Thing(KINDS["fox"]), background, size=size) for size in SIZES]
    scenes += [Scene(Thing(KINDS["fox"]), background, count=count) for count in (2, 3, 4)]
    for scene in scenes:
        for placement in lay_out(scene, lambda kind: outline, rng):
            edges = box(placement, outline)
            assert min(edges.left, edges.top) > 0.01 and max(edges.right, edges.bottom) < 0.99
    for relation in ("left", "above", "on"):
        for edges in pair(relation, number)[:2]:
            assert min(edges.left, edges.top) > 0.01 and max(edges.right, edges.bottom) < 0.99


@EACH_ROUND
def test_counted_things_are_equal_and_apart(number: int) -> None:
    rng = generator(1, "layout/count", number)
    outline, background = choice(rng, SHAPES), choice(rng, BACKGROUNDS)
    for count in (2, 3, 4):
        placements = lay_out(Scene(Thing(KINDS["fox"]), background, count=count), lambda kind: outline, rng)
        assert len(placements) == count and len({placement.size for placement in placements}) == 1
        for a, b in itertools.combinations([box(placement, outline) for placement in placements], 2):
            across = min(a.right, b.right) - max(a.left, b.left)
            down = min(a.bottom, b.bottom) - max(a.top, b.top)
            assert min(across, down) < 0.03


def test_sizes_are_in_the_order_of_their_words() -> None:
    def size(word: str, number: int) -> float:
        scene = Scene(Thing(KINDS["fox"]), size=word)
        return lay_out(scene, lambda kind: SHAPES[0], generator(1, "layout/size", number))[0].size

    for number in ROUNDS:
        assert size("small", number) < 0.4
        assert 0.5 < size("", number) < 0.75
        assert size("big", number) > 0.8


def test_things_stand_on_the_ground_where_there_is_one() -> None:
    def outline(kind: ObjectKind) -> Outline:
        return SHAPES[1]

    for background in BACKGROUNDS:
        ground = GROUND.get(background)
        for number in ROUNDS:
            rng = generator(1, "layout/ground", number)
            single = lay_out(Scene(Thing(KINDS["fox"]), background), outline, rng)[0]
            assert single.standing == (ground is not None)
            if ground is not None:
                assert abs(box(single, SHAPES[1]).bottom - ground) < 0.06
    scene = Scene(Thing(KINDS["cat"]), "grass", partner=Thing(KINDS["car"]), relation="above")
    assert [p.standing for p in lay_out(scene, outline, generator(1, "layout/ground", 0))] == [True, False]
