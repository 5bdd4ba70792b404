"""Scenes that differ from a given one in a single fact: what a caption tells that is wrong in one word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from studio.training.counter import choice
from studio.training.data.scenes.holdout import any_held_out
from studio.training.data.scenes.scene import Scene, mirrored, stands_out
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COARSE_STYLES,
    COLOURLESS_STYLES,
    COLOURS,
    COUNT_WORDS,
    OBJECTS,
    PLACES,
    SIZE_WORDS,
    STYLES,
    TIMES,
)

Swap = Callable[[Scene, np.random.Generator], Scene | None]
"""Makes the other scene, one that could have been drawn too; None where captions do not tell the fact or nothing else could be drawn."""

_T = TypeVar("_T")


def wrong_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """``scene`` with one of its facts swapped, each with the same chance; like all that training sees, it holds no held-out combination."""
    while True:
        swapped: Scene | None = choice(rng, tuple(SWAPS.values()))(scene, rng)
        if swapped is not None and not any_held_out(swapped.pairs()):
            return swapped


def swap_object(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another object of the same sort (glyph or shape) in the main one's place."""
    shown = [thing.kind for thing in scene.things]
    others = [kind for kind in OBJECTS if kind not in shown and kind.is_shape == scene.main.kind.is_shape]
    return _one_of(others, lambda kind: replace(scene, main=replace(scene.main, kind=kind)), rng)


def swap_colour(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another colour word for the main object."""
    if not scene.main.colour:
        return None
    others = [name for name in COLOURS if name != scene.main.colour]
    return _one_of(others, lambda name: replace(scene, main=replace(scene.main, colour=name)), rng)


def swap_background(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another plain background for a plain one, another place for a place."""
    if not scene.named:
        return None
    plain = COLOURLESS_STYLES.get(scene.style, tuple(BACKGROUNDS))
    options = [place.name for place in PLACES if place.has_times or not scene.time] if scene.in_place else plain
    others = [name for name in options if name != scene.background]
    return _one_of(others, lambda name: replace(scene, background=name), rng)


def swap_time(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another time of day."""
    others = [name for name in TIMES if scene.time and name != scene.time]
    return _one_of(others, lambda name: replace(scene, time=name), rng)


def swap_count(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another number of the same object, from one on; two different objects, and one of a named size, have no number."""
    told = scene.partner is None and not scene.size
    others = [number for number in (1, *COUNT_WORDS) if told and number != scene.count]
    return _one_of(others, lambda number: replace(scene, count=number), rng)


def swap_relation(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The two objects exchanged, as in "a dog left of a cat" for "a cat left of a dog"."""
    return mirrored(scene) if scene.partner and scene.relation != "and" else None


def swap_size(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The other size word."""
    others = [word for word in SIZE_WORDS if scene.size and word != scene.size]
    return _one_of(others, lambda word: replace(scene, size=word), rng)


def swap_style(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """Another style, with colours for one with colours."""
    gray = scene.style in COLOURLESS_STYLES
    others = [name for name in STYLES if scene.style and name != scene.style and (name in COLOURLESS_STYLES) == gray]
    return _one_of(others, lambda name: replace(scene, style=name), rng)


SWAPS: dict[str, Swap] = {
    "object": swap_object,
    "colour": swap_colour,
    "background": swap_background,
    "time": swap_time,
    "count": swap_count,
    "relation": swap_relation,
    "size": swap_size,
    "style": swap_style,
}
"""By the fact that is swapped."""


def _one_of(options: Sequence[_T], made: Callable[[_T], Scene], rng: np.random.Generator) -> Scene | None:
    """The scene made of a random one of those ``options`` with which it could have been drawn."""
    scenes = (made(options[int(number)]) for number in rng.permutation(len(options)))
    return next((scene for scene in scenes if _could_be_drawn(scene)), None)


def _could_be_drawn(scene: Scene) -> bool:
    """Whether nothing vanishes: not against what captions name, and not in the style."""
    behind = [scene.background] * scene.named + [scene.time]
    return all(stands_out(scene, where) for where in behind) and not (
        scene.size == "small" and scene.style in COARSE_STYLES
    )
