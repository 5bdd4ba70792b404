"""Scenes by what is special about them, so that rare sorts can be asked for in fair numbers."""

from __future__ import annotations

from collections.abc import Mapping

from studio.errors import TrainingError
from studio.training.data.scenes.scene import Scene, draw_scene
from studio.training.data.scenes.vocabulary import COUNT_WORDS

COUNT_GROUPS = tuple(f"count {number}" for number in COUNT_WORDS)
GROUPS = ("single", "time", "style", "pair", *COUNT_GROUPS)
_PATIENCE = 5_000
"""Scenes looked at for each one wanted, before it is said that there are none."""


def group_of(scene: Scene) -> str:
    """The group of ``GROUPS`` that a scene belongs to; "single" has one object and neither style nor time of day."""
    if scene.partner is not None:
        return "pair"
    if scene.count > 1:
        return f"count {scene.count}"
    if scene.style:
        return "style"
    return "time" if scene.time else "single"


def pick_scenes(seed: int, quotas: Mapping[str, int], *, held_out: bool) -> list[tuple[int, Scene]]:
    """The first scenes of ``seed`` with their indices, in rising order, so many of each group as ``quotas`` says.

    Raises ``TrainingError`` when a group is too rare to be filled.
    """
    left = {group: count for group, count in quotas.items() if count}
    limit = _PATIENCE * sum(left.values())
    picked: list[tuple[int, Scene]] = []
    index = 0
    while left:
        if index == limit:
            raise TrainingError(f"Among {limit:,} scenes too few were found for these groups: {left}.")
        scene = draw_scene(seed, index, held_out=held_out)
        group = group_of(scene)
        if group in left:
            picked.append((index, scene))
            left[group] -= 1
            if not left[group]:
                del left[group]
        index += 1
    return picked


def split(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """``total`` in whole parts proportional to ``shares``; what rounding leaves goes to the first."""
    parts = {name: int(total * share / sum(shares.values())) for name, share in shares.items()}
    first = next(iter(parts))
    parts[first] += total - sum(parts.values())
    return parts
