"""Prompt editing: what the vectors leave open. Their cases are in test_prompt_vectors.py."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.prompt import Stretch, active_stretch, parse_schedule

PIECES = st.lists(
    st.sampled_from(["[", "]", "(", ")", ":", "|", "0.5", "3", "a", " ", "\\", "b c", "[a:b:0.5]"]), max_size=30
)


def texts(prompt: str, steps: int = 10, **more: int) -> list[tuple[int, str]]:
    return [(stretch.until, stretch.text) for stretch in parse_schedule(prompt, steps, **more)]


@given(PIECES.map("".join), st.integers(1, 12))
def test_stretches_rise_to_the_last_step_whatever_is_typed(prompt: str, steps: int) -> None:
    found = parse_schedule(prompt, steps)
    ends = [stretch.until for stretch in found]
    assert ends == sorted(set(ends)) and ends[-1] == steps and ends[0] >= 1


@given(st.text(st.characters(exclude_characters="[|"), max_size=60))
def test_text_without_square_brackets_stays_as_it_is(prompt: str) -> None:
    assert texts(prompt) == [(10, prompt)]


@pytest.mark.parametrize(
    "prompt",
    [
        "a|b [c:d:0.5]",
        "[a:b:0.5] x|",
        "[a:b:0.5] \\",
        "[a (b] c:d:0.5]",
        "[(a:b:c):d:0.5]",
        "[[a:b:c:d]:e:3]",
        "[a|b:c|d]",
    ],
)
def test_what_breaks_the_rules_is_plain_text(prompt: str) -> None:
    assert texts(prompt) == [(10, prompt)]


def test_a_broken_bracket_leaves_the_others_alone() -> None:
    assert texts("[a:b:c:d] [e:f:3]") == [(3, "[a:b:c:d] e"), (10, "[a:b:c:d] f")]
    assert texts("(a [e:f:3]") == [(3, "(a e"), (10, "(a f")]


def test_numbers_as_people_write_them() -> None:
    assert texts("[a:b:.5]") == texts("[a:b:0.50 ]") == texts("[a:b:5]") == texts("[a:b:+5]") == [(5, "a"), (10, "b")]
    assert texts("[a:b:1e999]") == [(10, "a")]
    assert texts("[a:b:-1e999]") == [(10, "b")]


def test_second_passes_count_on() -> None:
    assert texts("[a:b:1.5]", before=20) == [(5, "a"), (10, "b")]
    assert texts("[a:b:24]", before=20) == [(4, "a"), (10, "b")]
    assert texts("[a:b:0.5]", before=20) == [(10, "b")]


@pytest.mark.parametrize(
    "opening, closing",
    [("[", ""), ("([", ""), ("[a:", ""), ("[a|", ""), ("[[a]:", ""), ("[]", ""), ("\\\\[", ""), ("[a:b:3]", ""), ("[(a:1.2)|b]", ""),
     ("[", "]"), ("[", ":b:1]"), ("[", "|b]")],
)  # fmt: skip
def test_a_megabyte_of_syntax_takes_linear_time(opening: str, closing: str) -> None:
    def seconds(length: int) -> float:
        count = length // len(opening + closing)
        prompt = opening * count + closing * count
        began = time.process_time()
        assert parse_schedule(prompt, 4)[-1].until == 4
        return time.process_time() - began

    assert seconds(1_000_000) < 3 * max(seconds(500_000), 2)  # seconds of a busy machine; quadratic would be hours


def test_the_first_stretch_lasts_a_call_longer_and_returns_after_the_end() -> None:
    ends = [stretch.until for stretch in (Stretch(3, "a"), Stretch(5, "b"))]
    assert [active_stretch(ends, call) for call in range(8)] == [0, 0, 0, 0, 1, 1, 0, 0]
