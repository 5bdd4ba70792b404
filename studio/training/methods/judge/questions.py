"""What the judge is asked about a picture, and the true answers of a scene; everything follows from the tables that scenes are drawn with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from studio.training.data.scenes.scene import Scene
from studio.training.data.scenes.vocabulary import BACKGROUNDS, COUNT_WORDS, OBJECTS, PLACES, SIZES, STYLES, TIMES

KINDS: tuple[str, ...] = tuple(kind.name for kind in OBJECTS)

ARRANGEMENTS = {"left": "side by side", "right": "side by side", "above": "stacked", "below": "stacked", "on": "on"}
"""How two objects stand to each other, whichever comes first; which one does follows from where each of them is seen."""

ALONE = "alone"

QUESTIONS: dict[str, tuple[str, ...]] = {
    "background": (*BACKGROUNDS, *(place.name for place in PLACES)),
    "time": ("", *TIMES),
    "style": ("", *STYLES),
    "count": ("1", *map(str, COUNT_WORDS)),
    "size": tuple(SIZES),
    "arrangement": (ALONE, *dict.fromkeys(ARRANGEMENTS.values())),
}
"""Question -> the answers to choose from, one of them right. Which objects are there is asked apart: they can be several."""

UNASKED = -1


def kinds_shown(scene: Scene) -> tuple[str, ...]:
    """The kinds of object in a picture of ``scene``: one, or two different ones."""
    return tuple(thing.kind.name for thing in scene.things)


def answers(scene: Scene) -> dict[str, str]:
    """The right answer to each question that a picture of ``scene`` settles."""
    found = {"background": scene.background, "time": scene.time, "style": scene.style}
    if scene.partner is not None:
        if scene.relation in ARRANGEMENTS:
            found["arrangement"] = ARRANGEMENTS[scene.relation]
        return found
    found["count"] = str(scene.count)
    if scene.count == 1:
        found |= {"size": scene.size, "arrangement": ALONE}
    return found


def targets(scenes: Sequence[Scene]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """What the judge learns from: (n, kinds) shares that sum to 1 over the kinds shown, and (n, questions) answers by number or ``UNASKED``."""
    shares = np.zeros((len(scenes), len(KINDS)), dtype=np.float32)
    labels = np.full((len(scenes), len(QUESTIONS)), UNASKED, dtype=np.int64)
    for row, scene in enumerate(scenes):
        shown = kinds_shown(scene)
        shares[row, [KINDS.index(kind) for kind in shown]] = 1 / len(shown)
        given = answers(scene)
        for column, (question, choices) in enumerate(QUESTIONS.items()):
            if question in given:
                labels[row, column] = choices.index(given[question])
    return shares, labels
