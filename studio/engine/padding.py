"""Prompts of different lengths made equally long, AUTOMATIC1111's ways.

Prompts put together with AND always become as long as the longest of them, by their last vector. How prompt and negative prompt are brought
together is the request's choice:

    off        they stay as they are, and go through the U-Net one after the other
    chunks     the shorter one is filled up with chunks of the empty prompt ("Pad conds")
    v0         the negative one is filled up by its last vector, or cut, as before version 1.6 ("Pad conds v0")
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.engine.denoise import Condition, Timeline
from studio.schema.resolved import Padding


def evened(
    positive: Sequence[Timeline], negative: Timeline | None, padding: Padding, empty: Tensor | None = None
) -> tuple[list[Timeline], Timeline | None]:
    """The same prompts, evened out at every model call.

    `empty` [1, 77, D] is the empty prompt, for `chunks`. A condition that is as long as it must be stays the same object, so that what
    is kept for it counts on; one that is filled up is made once for each length.
    """
    prompts = [*positive, *([negative] if negative else [])]
    count, filler = len(positive), _Filler()
    columns: dict[int, list[Condition]] = {}
    for call in sorted({end for prompt in prompts for end, _ in prompt.stretches}):
        now = [prompt.at(call) for prompt in prompts]
        longest = max(_length(each) for each in now[:count])
        now[:count] = [filler.by_last(each, longest) for each in now[:count]]
        if padding == "v0":
            now[count:] = [filler.by_last(each, longest) for each in now[count:]]
        elif padding == "chunks" and empty is not None:
            length = max(_length(each) for each in now)
            now = [filler.by_chunks(each, length, empty) for each in now]
        columns[call] = now
    made = [
        Timeline(tuple((call, now[place]) for call, now in columns.items()), prompt.weight)
        for place, prompt in enumerate(prompts)
    ]
    return made[:count], made[count] if negative else None


class _Filler:
    """Conditions of another length, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], Condition] = {}

    def by_last(self, condition: Condition, length: int) -> Condition:
        """Filled up by the last vector, or cut."""
        states = condition.states[:, :length]
        last = states[:, -1:].expand(-1, length - states.shape[1], -1)
        return self._kept(condition, length, torch.cat((states, last), dim=1))

    def by_chunks(self, condition: Condition, length: int, empty: Tensor) -> Condition:
        """Filled up with whole chunks."""
        chunks = (length - _length(condition)) // empty.shape[1]
        return self._kept(condition, length, torch.cat((condition.states, *[empty] * chunks), dim=1))

    def _kept(self, condition: Condition, length: int, states: Tensor) -> Condition:
        if _length(condition) == length:
            return condition
        return self._made.setdefault((id(condition), length), Condition(states, condition.added))


def _length(condition: Condition) -> int:
    return condition.states.shape[1]
