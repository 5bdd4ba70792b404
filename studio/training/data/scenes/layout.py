"""Where the things of a scene stand: positions and sizes as fractions of the picture, drawn from the scene's own random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.training.counter import choice
from studio.training.data.scenes.scene import Scene, Thing
from studio.training.data.scenes.vocabulary import PLACES, SIZES, ObjectKind

_GROUND = {place.name: place.ground for place in PLACES}
_MARGIN = 0.02
_STACK_FOOT = 0.91
"""Where the lower of two stacked things stands: further down than a single one does, to leave room above."""
_GAP = 0.06
"""Least distance between a thing and the one above it."""
_TOUCH = 0.015
"""How far a thing sinks into the one it rests on."""

_Group = tuple[tuple[tuple[float, float], ...], tuple[float, float]]
"""Points for several equal things, and the range of their size."""
_FLOATING: dict[int, tuple[_Group, ...]] = {
    2: ((((0.27, 0.5), (0.73, 0.5)), (0.36, 0.42)),),
    3: (
        (((0.5, 0.26), (0.27, 0.73), (0.73, 0.73)), (0.36, 0.42)),
        (((0.27, 0.27), (0.73, 0.27), (0.5, 0.74)), (0.36, 0.42)),
        (((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)), (0.29, 0.32)),
    ),
    4: ((((0.27, 0.26), (0.73, 0.26), (0.27, 0.74), (0.73, 0.74)), (0.36, 0.42)),),
}
"""By count: arrangements of centres."""
_STANDING: dict[int, tuple[_Group, ...]] = {
    2: ((((0.27, 0.92), (0.73, 0.92)), (0.36, 0.42)),),
    3: ((((0.18, 0.90), (0.5, 0.90), (0.82, 0.90)), (0.29, 0.32)),),
    4: ((((0.27, 0.58), (0.73, 0.58), (0.27, 0.95), (0.73, 0.95)), (0.30, 0.34)),),
}
"""By count: arrangements of feet."""


@dataclass(frozen=True)
class Outline:
    """What layout must know of a cut-out, as fractions of its larger side: width, height, and ``seat``, how far below its top something
    put on it comes to rest."""

    width: float
    height: float
    seat: float


@dataclass(frozen=True)
class Placement:
    """A thing with its centre, its larger side ``size`` and whether it stands on the ground of a place (and casts a shadow there)."""

    thing: Thing
    x: float
    y: float
    size: float
    standing: bool = False


def lay_out(scene: Scene, outline: Callable[[ObjectKind], Outline], rng: np.random.Generator) -> list[Placement]:
    """The scene's things in painting order, none reaching over the picture's edge."""
    if scene.partner is not None:
        placements = _pair(scene, outline, rng)
    elif scene.count > 1:
        placements = _several(scene, outline(scene.main.kind), rng)
    else:
        placements = [_single(scene, outline(scene.main.kind), rng)]
    return [_inside(placement, outline(placement.thing.kind)) for placement in placements]


def _single(scene: Scene, outline: Outline, rng: np.random.Generator) -> Placement:
    ground = _GROUND.get(scene.background)
    size = rng.uniform(*SIZES[scene.size])
    spread = {"": 0.07, "small": 0.16, "big": 0.02}[scene.size]
    x, y = 0.5 + rng.uniform(-spread, spread, size=2)
    if ground is None:
        return Placement(scene.main, x, y, size)
    return _stand(scene.main, x, ground + rng.uniform(-0.03, 0.04), size, outline)


def _several(scene: Scene, outline: Outline, rng: np.random.Generator) -> list[Placement]:
    standing = _GROUND.get(scene.background) is not None
    points, sizes = choice(rng, (_STANDING if standing else _FLOATING)[scene.count])
    size = rng.uniform(*sizes)
    shift = rng.uniform(-0.025, 0.025, size=2)
    placements = []
    for x, y in points:
        x, y = x + shift[0], y + shift[1] + rng.uniform(-0.015, 0.015)
        placements.append(_stand(scene.main, x, y, size, outline) if standing else Placement(scene.main, x, y, size))
    return placements


def _pair(scene: Scene, outline: Callable[[ObjectKind], Outline], rng: np.random.Generator) -> list[Placement]:
    assert scene.partner is not None
    if scene.relation in ("left", "right", "and"):
        return _side_by_side(scene, scene.partner, outline, rng)
    upper, lower = (scene.partner, scene.main) if scene.relation == "below" else (scene.main, scene.partner)
    return _stacked(scene, upper, lower, outline, rng)


def _side_by_side(
    scene: Scene, partner: Thing, outline: Callable[[ObjectKind], Outline], rng: np.random.Generator
) -> list[Placement]:
    ground = _GROUND.get(scene.background)
    left, right = (partner, scene.main) if scene.relation == "right" else (scene.main, partner)
    size = rng.uniform(0.38, 0.45)
    placements = []
    for thing, x in ((left, 0.26), (right, 0.74)):
        dx, dy = rng.uniform(-0.025, 0.025, size=2)
        if ground is None:
            placements.append(Placement(thing, x + dx, 0.5 + dy, size))
        else:
            placements.append(_stand(thing, x + dx, ground + dy, size, outline(thing.kind)))
    return placements


def _stacked(
    scene: Scene, upper: Thing, lower: Thing, outline: Callable[[ObjectKind], Outline], rng: np.random.Generator
) -> list[Placement]:
    """``upper`` rests on ``lower`` for the relation "on"; otherwise there is a gap between the two. Without ground the pair is centred."""
    grounded = _GROUND.get(scene.background) is not None
    above, below = outline(upper.kind), outline(lower.kind)
    foot = _STACK_FOOT + rng.uniform(-0.01, 0.03)
    size = min(rng.uniform(0.36, 0.41), (foot - _MARGIN - _GAP) / (above.height + below.height))
    x, upper_x = 0.5 + rng.uniform(-0.05, 0.05, size=2)
    top = foot - below.height * size
    if scene.relation == "on":
        upper_x, upper_foot = x, top + below.seat * size + _TOUCH
    else:
        room = top - _GAP - above.height * size - _MARGIN
        upper_foot = top - _GAP - min(room, rng.uniform(0, 0.08))
    lift = 0.0 if grounded else (foot + upper_foot - above.height * size - 1) / 2
    return [
        _stand(lower, x, foot - lift, size, below, standing=grounded),
        _stand(upper, upper_x, upper_foot - lift, size, above, standing=False),
    ]


def _stand(thing: Thing, x: float, foot: float, size: float, outline: Outline, *, standing: bool = True) -> Placement:
    return Placement(thing, x, foot - outline.height * size / 2, size, standing)


def _inside(placement: Placement, outline: Outline) -> Placement:
    """Moved, if need be, so that it keeps a margin to every edge as far as its size allows."""
    half_width, half_height = outline.width * placement.size / 2, outline.height * placement.size / 2
    x = min(max(placement.x, half_width + _MARGIN), 1 - half_width - _MARGIN)
    y = min(max(placement.y, half_height + _MARGIN), 1 - half_height - _MARGIN)
    return Placement(placement.thing, x, y, placement.size, placement.standing)
