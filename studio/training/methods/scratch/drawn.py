"""Drawn scenes as lessons: picture, captions and labels are functions of (seed, index), and never run out."""

from __future__ import annotations

import numpy as np

from studio.schema.training import ScratchData
from studio.training.counter import generator
from studio.training.data.scenes.captions import write_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, draw_scene
from studio.training.data.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNT_WORDS,
    OBJECTS,
    PLACES,
    RELATIONS,
    SIZES,
    STYLES,
    TIMES,
)
from studio.training.methods.scratch.lessons import Labels, Pictures

_UNSEEN = 1_000_003
"""Added to the seed for drawings that no stage trains on."""
_OBJECTS = ("", *(kind.name for kind in OBJECTS))
_COLOURS = ("", *COLOURS)
_BACKGROUNDS = ("", *BACKGROUNDS, *(place.name for place in PLACES))
_COUNTS = (1, *COUNT_WORDS)
_SIZES = tuple(SIZES)
_STYLES = ("", *STYLES)
_TIMES = ("", *TIMES)
_RELATIONS = ("", *RELATIONS)
HEADS: tuple[int, ...] = tuple(
    map(len, (_OBJECTS, _COLOURS, _OBJECTS, _COLOURS, _BACKGROUNDS, _COUNTS, _SIZES, _STYLES, _TIMES, _RELATIONS))
)
"""Classes of each head: both things and their colours, background, count, size, style, time of day, relation."""
TOLD: tuple[int, ...] = (0, 1, 4)
"""Main thing, its colour, background."""


class DrawnLessons:
    """As ``Lessons``."""

    heads: tuple[int, ...] = HEADS
    told: tuple[int, ...] = TOLD

    def __init__(self, seed: int, data: ScratchData) -> None:
        self.count = data.pictures
        self._seed = seed
        self._data = data
        self._atlas = GlyphAtlas()

    def pictures(self, low: int, high: int) -> Pictures:
        """As ``Lessons.pictures``."""
        return self._drawn(self._seed, low, high)

    def unseen(self, count: int) -> Pictures:
        """As ``Lessons.unseen``."""
        return self._drawn(self._seed + _UNSEEN, 0, count)

    def captions(self, index: int) -> list[str]:
        """As ``Lessons.captions``."""
        scene, rng = draw_scene(self._seed, index), generator(self._seed, "caption", index)
        return [write_caption(scene, rng) for _ in range(self._data.captions)]

    def labels(self) -> Labels:
        """As ``Lessons.labels``."""
        return np.array([scene_labels(draw_scene(self._seed, index)) for index in range(self.count)], dtype=np.int64)

    def _drawn(self, seed: int, low: int, high: int) -> Pictures:
        side = self._data.side
        pictures = np.empty((high - low, side, side, 3), dtype=np.uint8)
        for index in range(low, high):
            pictures[index - low] = paint_scene(draw_scene(seed, index), self._atlas, seed, index, side)
        return pictures


def scene_labels(scene: Scene) -> tuple[int, ...]:
    """One class a head of ``HEADS``; what captions do not name has class 0, as have no partner, one thing and the usual size."""
    partner = scene.partner
    return (
        _OBJECTS.index(scene.main.kind.name),
        _COLOURS.index(scene.main.colour),
        _OBJECTS.index(partner.kind.name if partner else ""),
        _COLOURS.index(partner.colour if partner else ""),
        _BACKGROUNDS.index(scene.background if scene.named else ""),
        _COUNTS.index(scene.count),
        _SIZES.index(scene.size),
        _STYLES.index(scene.style),
        _TIMES.index(scene.time),
        _RELATIONS.index(scene.relation if partner else ""),
    )
