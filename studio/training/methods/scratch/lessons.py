"""What a model is taught from nothing: a numbered row of pictures with captions, and what the captions name, wherever both come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Lessons(Protocol):
    """``count`` pictures, numbered from 0: the same at every sitting.

    ``heads``: how many classes each thing has that captions tell apart; none when they are too different to be classes. ``told``: those heads whose right
    answers are worth a report.
    """

    count: int
    heads: tuple[int, ...]
    told: tuple[int, ...]

    def pictures(self, low: int, high: int) -> Pictures:
        """Pictures ``low`` to ``high``: (n, side, side, 3)."""
        ...

    def unseen(self, count: int) -> Pictures:
        """At most ``count`` pictures that are not among the numbered ones."""
        ...

    def captions(self, index: int) -> list[str]:
        """The captions of a picture, as many for each as the recipe says."""
        ...

    def labels(self) -> Labels:
        """(count, heads): the class of each picture in each head."""
        ...


def open_lessons(context: TrainingContext) -> Lessons:
    """What the recipe teaches: a data set where it names one, drawn scenes otherwise. Raises ``TrainingError`` as ``read_dataset``."""
    method = context.settings(ScratchMethod)
    if method.data.path:
        from studio.training.methods.scratch.given import GivenLessons

        return GivenLessons(context, method.data)
    from studio.training.methods.scratch.drawn import DrawnLessons

    return DrawnLessons(context.config.seed, method.data)
