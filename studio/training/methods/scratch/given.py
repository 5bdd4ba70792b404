"""A data set as lessons. Where few captions serve all pictures, as class names do, each is a class that the text encoder learns to tell apart."""

from __future__ import annotations

import json

import numpy as np

from studio.errors import TrainingError
from studio.paths import atomic_write
from studio.schema.training import ScratchData
from studio.schema.training_data import DatasetSettings
from studio.training.context import TrainingContext
from studio.training.data.dataset import Dataset, Item
from studio.training.data.prepare import fitted
from studio.training.methods.scratch.lessons import Labels, Pictures
from studio.training.tuning.prepare import open_dataset

MOST_CLASSES = 256
"""Different captions up to which they are taken for classes."""
_MOST_HELD, _HELD_SHARE = 128, 20
"""Kept back: one picture in twenty, at most so many."""


class GivenLessons:
    """As ``Lessons``. The pictures with the first content hashes are kept back; the others keep the data set's order.

    Raises ``TrainingError`` when it is not the data set that the run began with.
    """

    told: tuple[int, ...] = (0,)

    def __init__(self, context: TrainingContext, data: ScratchData) -> None:
        dataset = open_dataset(context, DatasetSettings(path=data.path, format=data.format))
        _same_as_before(context, dataset)
        by_content = sorted(dataset.items, key=lambda item: (item.key, item.name))
        self._held = by_content[: min(_MOST_HELD, len(by_content) // _HELD_SHARE)]
        held = {item.name for item in self._held}
        self._items = [item for item in dataset.items if item.name not in held][: data.pictures]
        self._side = data.side
        self._captions = data.captions
        self._classes = sorted({item.captions for item in self._items})
        self.count = len(self._items)
        self.heads: tuple[int, ...] = (len(self._classes),) if 1 < len(self._classes) <= MOST_CLASSES else ()

    def pictures(self, low: int, high: int) -> Pictures:
        """As ``Lessons.pictures``."""
        return self._read(self._items[low:high])

    def unseen(self, count: int) -> Pictures:
        """As ``Lessons.unseen``; of a data set too small to keep any back, the first."""
        return self._read((self._held or self._items)[:count])

    def captions(self, index: int) -> list[str]:
        """As ``Lessons.captions``: those of the picture, from the first again where it has fewer."""
        captions = self._items[index].captions
        return [captions[number % len(captions)] for number in range(self._captions)]

    def labels(self) -> Labels:
        """As ``Lessons.labels``."""
        numbers = {captions: number for number, captions in enumerate(self._classes)}
        return np.array([[numbers[item.captions]] for item in self._items], dtype=np.int64)

    def _read(self, items: list[Item]) -> Pictures:
        pictures = np.empty((len(items), self._side, self._side, 3), dtype=np.uint8)
        for number, item in enumerate(items):
            values = fitted(item.picture(), self._side, self._side).transpose(1, 2, 0)
            pictures[number] = np.rint((values + 1) * 127.5)
        return pictures


def _same_as_before(context: TrainingContext, dataset: Dataset) -> None:
    """What is encoded and learned already would be of other pictures."""
    file = context.run.path / "dataset.json"
    if not file.exists():
        atomic_write(file, json.dumps({"digest": dataset.digest, "pictures": len(dataset.items)}).encode())
    elif json.loads(file.read_text("utf-8"))["digest"] != dataset.digest:
        raise TrainingError(f"The data set {dataset.root} has changed since this run began; start a new one.")
