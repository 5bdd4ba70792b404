"""Prompts of different lengths become equally long, AUTOMATIC1111's ways."""

from __future__ import annotations

import torch

from studio.engine.denoise import Condition, Timeline
from studio.engine.padding import evened

EMPTY = torch.full((1, 77, 2), 9.0)


def condition(value: float, chunks: int = 1) -> Condition:
    """Every chunk has its own value, and its last vector another."""
    states = torch.cat([torch.full((1, 77, 2), float(value + chunk)) for chunk in range(chunks)], dim=1)
    states[:, -1] += 0.5
    return Condition(states, {"ids": torch.tensor([[value]])})


def always(condition: Condition, weight: float = 1.0) -> Timeline:
    return Timeline(((10, condition),), weight)


def values(timeline: Timeline | None, call: int = 0) -> list[float]:
    """The first vector of each chunk."""
    assert timeline is not None
    return timeline.at(call).states[0, ::77, 0].tolist()


def test_the_negative_prompt_is_left_as_long_as_it_is() -> None:
    positive, negative = condition(1, 2), condition(5)
    (first,), second = evened([always(positive)], always(negative), "off")
    assert first.at(0) is positive
    assert second is not None and second.at(0) is negative


def test_chunks_of_the_empty_prompt_fill_up_the_shorter_one() -> None:
    (first,), second = evened([always(condition(1, 3))], always(condition(5)), "chunks", EMPTY)
    assert (values(first), values(second)) == ([1, 2, 3], [5, 9, 9])
    assert torch.equal(second.at(0).states[:, :77], condition(5).states)  # type: ignore[union-attr]
    assert second.at(0).added == condition(5).added  # type: ignore[union-attr]
    (first,), second = evened([always(condition(1))], always(condition(5, 2)), "chunks", EMPTY)
    assert (values(first), values(second)) == ([1, 9], [5, 6])


def test_the_old_way_changes_the_negative_prompt_only() -> None:
    (first,), second = evened([always(condition(1, 3))], always(condition(5, 2)), "v0")
    assert (values(first), values(second)) == ([1, 2, 3], [5, 6, 6.5])
    (first,), second = evened([always(condition(1))], always(condition(5, 2)), "v0")
    assert (values(first), values(second)) == ([1], [5])


def test_parts_of_a_prompt_are_always_as_long_as_the_longest() -> None:
    prompts = [always(condition(1)), always(condition(2, 2), 0.3)]
    (first, second), negative = evened(prompts, always(condition(5)), "off")
    assert (values(first), values(second), values(negative)) == ([1, 1.5], [2, 3], [5])
    assert second.weight == 0.3
    (first, second), negative = evened(prompts, always(condition(5, 3)), "chunks", EMPTY)
    assert (values(first), values(second), values(negative)) == ([1, 1.5, 9], [2, 3, 9], [5, 6, 7])
    assert evened(prompts, None, "off")[1] is None


def test_it_is_decided_at_every_call() -> None:
    long, short = condition(1, 2), condition(3)
    edited = Timeline(((4, long), (10, short)))
    turns = Timeline(((3, condition(5)), (6, condition(6, 2)), (10, condition(7))))
    (first,), second = evened([edited], turns, "chunks", EMPTY)
    seen = [(values(first, call), values(second, call)) for call in (0, 3, 4, 5, 6, 7, 10, 11)]
    assert seen == [
        ([1, 2], [5, 9]),
        ([1, 2], [5, 9]),
        ([1, 2], [6, 7]),
        ([3, 9], [6, 7]),
        ([3, 9], [6, 7]),
        ([3], [7]),
        ([3], [7]),
        ([1, 2], [5, 9]),  # past the end, the first again
    ]
    assert second is not None
    assert second.at(0) is second.at(3)  # what is kept for it counts on
