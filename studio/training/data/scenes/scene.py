"""What is in a scene, and how scenes are drawn at random: one pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from studio.training.counter import choice, generator
from studio.training.data.scenes.holdout import PairKind, any_held_out
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNT_WORDS,
    DEFAULT_BACKGROUND,
    OBJECTS,
    PLACES,
    SIZE_WORDS,
    STYLES,
    ObjectKind,
)

Relation = Literal["left", "right", "above", "below", "and"]

_GLYPHS = tuple(kind for kind in OBJECTS if not kind.is_shape)
_SHAPES = tuple(kind for kind in OBJECTS if kind.is_shape)
_PLACE_NAMES = tuple(place.name for place in PLACES)

SHAPE_SHARE = 0.20
COUNT_SHARE = 0.08
PAIR_SHARE = 0.08
STYLE_SHARE = 0.05


@dataclass(frozen=True)
class Thing:
    """One kind of object in the scene; ``colour`` is empty for the object's own colours."""

    kind: ObjectKind
    colour: str = ""

    @property
    def shown_colour(self) -> str:
        """The colour it is painted in, or empty for a glyph in its own colours."""
        return self.colour or self.kind.natural


@dataclass(frozen=True)
class Scene:
    """All that the painter and the caption writer are told. ``partner`` and ``relation`` come together; ``count`` is 1 then.

    ``background`` is a key of ``BACKGROUNDS`` or the name of a place; ``named`` says whether captions mention it.
    """

    main: Thing
    background: str = DEFAULT_BACKGROUND
    named: bool = True
    size: str = ""
    count: int = 1
    partner: Thing | None = None
    relation: Relation = "and"
    style: str = ""

    @property
    def in_place(self) -> bool:
        return self.background in _PLACE_NAMES

    def pairs(self) -> Iterator[tuple[PairKind, str, str]]:
        """The combinations of which none may be held out in training."""
        for thing in (self.main, *([self.partner] if self.partner else [])):
            if thing.colour:
                yield "colour", thing.kind.name, thing.colour
            if self.named:
                yield "background", thing.kind.name, self.background
            if self.style:
                yield "style", thing.kind.name, self.style
        if self.partner:
            yield "partner", self.main.kind.name, self.partner.kind.name


def draw_scene(seed: int, index: int, *, held_out: bool = False) -> Scene:
    """Scene ``index`` of the endless list that ``seed`` names.

    Training scenes hold no held-out combination; with ``held_out`` each scene holds at least one.
    """
    rng = generator(seed, "scene/held out" if held_out else "scene", index)
    while True:
        scene = _propose(rng)
        if any_held_out(scene.pairs()) == held_out:
            return scene


def _propose(rng: np.random.Generator) -> Scene:
    draw = rng.random()
    if draw < PAIR_SHARE:
        main, partner = _thing(rng), _thing(rng)
        while partner.kind == main.kind:
            partner = _thing(rng)
        background, named = _background(rng, (main, partner), plain=0.7)
        relation: Relation = choice(rng, ("left", "right", "above", "below", "and"))
        return Scene(main, background, named, partner=partner, relation=relation)
    main = _thing(rng)
    background, named = _background(rng, (main,), plain=0.5)
    if draw < PAIR_SHARE + COUNT_SHARE:
        return Scene(main, background, named, count=int(choice(rng, tuple(COUNT_WORDS))))
    size = choice(rng, tuple(SIZE_WORDS)) if rng.random() < 0.12 else ""
    style = choice(rng, tuple(STYLES)) if draw > 1 - STYLE_SHARE else ""
    return Scene(main, background, named, size=size, style=style)


def _thing(rng: np.random.Generator) -> Thing:
    kind = choice(rng, _SHAPES if rng.random() < SHAPE_SHARE else _GLYPHS)
    coloured = rng.random() < (0.92 if kind.is_shape else 0.5)
    return Thing(kind, choice(rng, tuple(COLOURS)) if coloured else "")


def _background(rng: np.random.Generator, things: tuple[Thing, ...], *, plain: float) -> tuple[str, bool]:
    """A background on which no object vanishes, and whether captions name it."""
    if rng.random() >= plain:
        return choice(rng, _PLACE_NAMES), bool(rng.random() < 0.95)
    if rng.random() < 0.35 and all(thing.shown_colour != DEFAULT_BACKGROUND for thing in things):
        return DEFAULT_BACKGROUND, bool(rng.random() < 0.15)
    allowed = [name for name in BACKGROUNDS if all(thing.shown_colour != name for thing in things)]
    return choice(rng, allowed), True
