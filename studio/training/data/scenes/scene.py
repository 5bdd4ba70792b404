"""What is in a scene, and how scenes are drawn at random: one pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from studio.training.counter import choice, generator
from studio.training.data.scenes.holdout import PairKind, any_held_out
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
    STYLES,
    TIMES,
    ObjectKind,
)

Relation = Literal["left", "right", "above", "below", "on", "and"]

_GLYPHS = tuple(kind for kind in OBJECTS if not kind.is_shape)
_SHAPES = tuple(kind for kind in OBJECTS if kind.is_shape)
_PLACES = {place.name: place for place in PLACES}

PAIR_SHARE = 0.24
COUNT_SHARE = 0.12
SHAPE_SHARE = 0.18
STYLE_SHARE = 0.14
SIZE_SHARE = 0.12
PLAIN_SHARE = {"single": 0.5, "count": 0.6, "pair": 0.6}
TIME_SHARE = 0.35
"""Of the scenes in a place that has times."""
TIME_ALONE_SHARE = 0.35
"""Of the scenes with a time: no place is named."""


@dataclass(frozen=True)
class Thing:
    """One kind of object in the scene; ``colour`` is empty for the object's own colours."""

    kind: ObjectKind
    colour: str = ""

    @property
    def shown_colour(self) -> str:
        """The colour word of what is seen, or empty for a glyph of several colours."""
        return self.colour or self.kind.natural


@dataclass(frozen=True)
class Scene:
    """All that the painter and the caption writer are told. ``partner`` and ``relation`` come together; ``count`` is 1 then.

    ``background`` is a key of ``BACKGROUNDS`` or the name of a place; ``named`` says whether captions mention it. ``time`` is a key of
    ``TIMES`` and is always mentioned, or empty for daylight; only a place under the open sky has one.
    """

    main: Thing
    background: str = DEFAULT_BACKGROUNDS[0]
    named: bool = True
    size: str = ""
    count: int = 1
    partner: Thing | None = None
    relation: Relation = "and"
    style: str = ""
    time: str = ""

    @property
    def in_place(self) -> bool:
        return self.background in _PLACES

    @property
    def things(self) -> tuple[Thing, ...]:
        """The main thing, and the partner if there is one."""
        return (self.main,) if self.partner is None else (self.main, self.partner)

    def pairs(self) -> Iterator[tuple[PairKind, str, str]]:
        """The combinations of which none may be held out in training; a time of day counts as a background."""
        for thing in self.things:
            if thing.colour:
                yield "colour", thing.kind.name, thing.colour
            if self.named:
                yield "background", thing.kind.name, self.background
            if self.time:
                yield "background", thing.kind.name, self.time
            if self.style:
                yield "style", thing.kind.name, self.style
        if self.partner:
            yield "partner", self.main.kind.name, self.partner.kind.name


def draw_scene(seed: int, index: int, *, held_out: bool = False) -> Scene:
    """Scene ``index`` of the endless list that ``seed`` names.

    Scenes ``2k`` and ``2k + 1`` are pairs together, one the mirror of the other ("a cat left of a dog", "a dog left of a cat"): the same
    words, so that only their order tells the two pictures apart. Training scenes hold no held-out combination; with ``held_out`` each
    scene holds at least one.
    """
    stream = "scene/held out" if held_out else "scene"
    rng = generator(seed, f"{stream}/pair", index // 2)
    if rng.random() < PAIR_SHARE:
        scene = _until(held_out, lambda: _pair(rng))
        return mirrored(scene) if index % 2 else scene
    rng = generator(seed, stream, index)
    propose = _several if rng.random() < COUNT_SHARE / (1 - PAIR_SHARE) else _single
    return _until(held_out, lambda: propose(rng))


def mirrored(scene: Scene) -> Scene:
    """The same relation with the two things exchanged. Raises ``ValueError`` for a scene without a partner."""
    if scene.partner is None:
        raise ValueError(f"a scene with {scene.main.kind.name!r} alone has no mirror image")
    return replace(scene, main=scene.partner, partner=scene.main)


def _until(held_out: bool, propose: Callable[[], Scene]) -> Scene:
    while any_held_out((scene := propose()).pairs()) != held_out:
        pass
    return scene


def _pair(rng: np.random.Generator) -> Scene:
    style = _style(rng)
    main, partner = _thing(rng, style), _thing(rng, style)
    while partner.kind == main.kind:
        partner = _thing(rng, style)
    scene = Scene(main, partner=partner, relation=choice(rng, tuple(RELATIONS)), style=style)
    return _put_somewhere(scene, PLAIN_SHARE["pair"], rng)


def _several(rng: np.random.Generator) -> Scene:
    style = _style(rng)
    scene = Scene(_thing(rng, style), count=int(choice(rng, tuple(COUNT_WORDS))), style=style)
    return _put_somewhere(scene, PLAIN_SHARE["count"], rng)


def _single(rng: np.random.Generator) -> Scene:
    style = _style(rng)
    sizes = [word for word in SIZE_WORDS if word != "small" or style not in COARSE_STYLES]
    size = choice(rng, sizes) if rng.random() < SIZE_SHARE else ""
    return _put_somewhere(Scene(_thing(rng, style), size=size, style=style), PLAIN_SHARE["single"], rng)


def _style(rng: np.random.Generator) -> str:
    return str(choice(rng, tuple(STYLES))) if rng.random() < STYLE_SHARE else ""


def _thing(rng: np.random.Generator, style: str) -> Thing:
    kind = choice(rng, _SHAPES if rng.random() < SHAPE_SHARE else _GLYPHS)
    coloured = style not in COLOURLESS_STYLES and rng.random() < (0.92 if kind.is_shape else 0.5)
    return Thing(kind, choice(rng, tuple(COLOURS)) if coloured else "")


def _put_somewhere(scene: Scene, plain: float, rng: np.random.Generator) -> Scene:
    """``scene`` on a background, in a place or at a time where nothing vanishes; ``plain`` is the share of plain backgrounds."""
    if rng.random() < plain:
        backgrounds = [name for name in COLOURLESS_STYLES.get(scene.style, BACKGROUNDS) if stands_out(scene, name)]
        if rng.random() < 0.35 or not backgrounds:
            unnamed = next(name for name in DEFAULT_BACKGROUNDS if stands_out(scene, name))
            return replace(scene, background=unnamed, named=False)
        return replace(scene, background=choice(rng, backgrounds))
    place = _PLACES[choice(rng, [name for name in _PLACES if stands_out(scene, name)])]
    times = [name for name in TIMES if stands_out(scene, name)]
    timed = place.has_times and times and scene.style not in COLOURLESS_STYLES and rng.random() < TIME_SHARE
    if not timed:
        return replace(scene, background=place.name)
    if rng.random() < TIME_ALONE_SHARE:
        return replace(scene, background=DEFAULT_PLACE, named=False, time=choice(rng, times))
    return replace(scene, background=place.name, time=choice(rng, times))


def stands_out(scene: Scene, where: str) -> bool:
    """Whether every thing of ``scene`` stands out against the background, place or time ``where``; a sketch draws its outline anywhere."""
    return scene.style == SKETCH or all(thing.shown_colour not in HIDES.get(where, ()) for thing in scene.things)
