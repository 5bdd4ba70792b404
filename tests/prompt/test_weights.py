"""Emphasis: closed cases and properties. The table of AUTOMATIC1111's results is in test_prompt_vectors.py."""

from __future__ import annotations

import math
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import InvalidRequest
from studio.prompt import parse_weights

SYNTAX = st.lists(st.sampled_from([*"()[]\\:.5-ab \né１", "BREAK"]), max_size=60).map("".join)


def by_definition(text: str) -> list[tuple[str, float]]:
    """The rule done slowly: every closing bracket multiplies what was read since its opening. No BREAK, no joining."""
    result: list[list[str | float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(since: int, factor: float) -> None:
        for entry in result[since:]:
            entry[1] = float(entry[1]) * factor

    position = 0
    while position < len(text):
        rest = text[position:]
        number = re.match(r":\s*([+-]?[.\d]+)\s*\)", rest)
        if rest[0] == "\\":
            literal = rest[1] if len(rest) > 1 and rest[1] in "()[]\\" else ""
            result.append([literal, 1.0])
            position += 1 + len(literal)
            continue
        if number and opened["("]:
            multiply(opened["("].pop(), float(number[1]))
            position += len(number[0])
            continue
        if rest[0] in "([":
            opened[rest[0]].append(len(result))
        elif rest[0] == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif rest[0] == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        else:
            result.append([rest[0], 1.0])
        position += 1
    for since in opened["("]:
        multiply(since, 1.1)
    for since in opened["["]:
        multiply(since, 1 / 1.1)
    return [(str(part), float(weight)) for part, weight in result if part]


@given(SYNTAX)
@settings(deadline=2000)
def test_equals_the_definition_character_by_character(text: str) -> None:
    text = text.replace("BREAK", "b")
    try:
        expected = by_definition(text)
    except ValueError:
        with pytest.raises(InvalidRequest):
            parse_weights(text)
        return
    got = [(character, weight) for part, weight in parse_weights(text) for character in part]
    assert [character for character, _ in got] == [character for character, _ in expected]
    for (_, weight), (_, wanted) in zip(got, expected, strict=True):
        assert math.isclose(weight, wanted, rel_tol=1e-12)


@given(st.text(max_size=200) | SYNTAX)
@settings(deadline=2000)
def test_any_text_gives_finite_weights_or_a_clear_message(text: str) -> None:
    try:
        parts = parse_weights(text)
    except InvalidRequest:
        return
    assert parts
    assert all(math.isfinite(weight) for _, weight in parts)
    assert all(left[1] != right[1] for left, right in pairwise(parts))


@given(st.text(st.characters(exclude_characters="()[]\\:", exclude_categories=["Cs"])))
def test_text_without_syntax_is_returned_as_it_is(text: str) -> None:
    text = text.replace("BREAK", "")
    assert parse_weights(text) == [(text, 1.0)]


def test_brackets_of_two_kinds_that_cross() -> None:
    assert parse_weights("(a [b) c]") == [
        ("a ", 1.1),
        ("b", pytest.approx(1.0)),
        (" c", pytest.approx(1 / 1.1)),
    ]


def test_break_loses_the_space_beside_it_and_nothing_else() -> None:
    assert parse_weights("a \n BREAK\t b BREAKc") == [("a", 1.0), ("BREAK", -1.0), ("b BREAKc", 1.0)]


@pytest.mark.parametrize("text", ["(a:1.2.3)", "x (b:..) y", "(c:.)"])
def test_a_weight_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a weight") as caught:
        parse_weights(text)
    assert caught.value.field == "prompt"


def test_weights_stay_finite() -> None:
    deep = parse_weights("(" * 10_000 + "x")
    huge = parse_weights("(x:" + "9" * 400 + ")")
    zero = parse_weights("((x:0):" + "9" * 400 + ")")
    assert math.isfinite(deep[0][1])
    assert math.isfinite(huge[0][1])
    assert zero == [("x", 0.0)]


@pytest.mark.parametrize(
    "piece",
    ["(", ")", "[", "([)]", "(a", "a:", ": ", ":1", ":1)", "\\", " ", "BREAK ", "((((x:1.2)", "[a:b|", "(x:1.2)"],
)
def test_a_megabyte_of_syntax_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    parse_weights(text)
    assert time.process_time() - start < 6  # of a busy machine; quadratic would be hours


def test_long_runs_inside_a_weight_are_read_once() -> None:
    blank = " " * 300_000
    start = time.process_time()
    parse_weights(f"(a:{blank}1{blank}:{blank}1.1{blank}x{blank}BREAK{blank}")
    assert time.process_time() - start < 20  # read once for each place it could begin at it would be hours
