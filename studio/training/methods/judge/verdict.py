"""Right or wrong: what the judge sees in a picture against what its scene says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from studio.training.data.scenes.scene import Scene
from studio.training.methods.judge.judge import Seen
from studio.training.methods.judge.questions import ARRANGEMENTS, kinds_shown


@dataclass(frozen=True)
class Share:
    """``right`` of ``count`` pictures."""

    right: int
    count: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.right / self.count if self.count else 0.0


def verdicts(scene: Scene, seen: Seen) -> dict[str, bool]:
    """Whether the picture has what a caption of ``scene`` asks for, by question; questions that it leaves open are not there.

    object      the asked kind is the likeliest one
    objects     the two asked kinds are the two likeliest ones
    relation    the arrangement is right, and each of the two is where it should be
    background, time, style, count, size    the answer to that question is right
    """
    shown = kinds_shown(scene)
    found = {"object" if len(shown) == 1 else "objects": set(seen.likeliest(len(shown))) == set(shown)}
    if scene.named:
        found["background"] = seen.answers["background"] == scene.background
    for question, asked in (("time", scene.time), ("style", scene.style), ("size", scene.size)):
        if asked:
            found[question] = seen.answers[question] == asked
    if scene.partner is None:
        found["count"] = seen.answers["count"] == str(scene.count)
    elif scene.relation in ARRANGEMENTS:
        found["relation"] = _relation_right(scene.relation, shown, seen)
    return found


def tally(judged: Iterable[Mapping[str, bool]]) -> dict[str, Share]:
    """By question, how many verdicts are right of how many there are."""
    right: dict[str, int] = {}
    count: dict[str, int] = {}
    for verdict in judged:
        for question, holds in verdict.items():
            right[question] = right.get(question, 0) + holds
            count[question] = count.get(question, 0) + 1
    return {question: Share(right[question], count[question]) for question in count}


def _relation_right(relation: str, shown: tuple[str, ...], seen: Seen) -> bool:
    if seen.answers["arrangement"] != ARRANGEMENTS[relation]:
        return False
    (x, y), (other_x, other_y) = (seen.centre(kind) for kind in shown)
    if relation in ("left", "right"):
        return (x < other_x) == (relation == "left")
    return (y < other_y) == (relation != "below")
