"""Tags: what is one, what its numbers are, and what is refused."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InvalidRequest
from studio.prompt import extract_networks, lora_rank, lora_weights


def test_tags_are_taken_out_in_order() -> None:
    clean, tags = extract_networks("a <lora:one:0.5>, <hypernet:h> <lora:two words:te=0.1:unet=2> b")
    assert clean == "a ,   b"
    assert [tag.name for tag in tags] == ["one", "h", "two words"]
    assert tags[2].positional == ("two words",)
    assert tags[2].named == {"te": "0.1", "unet": "2"}


@given(st.text(max_size=80) | st.text(st.sampled_from(list("<>:=lora1. ")), max_size=80))
def test_nothing_is_lost_and_nothing_invented(text: str) -> None:
    clean, tags = extract_networks(text)
    assert len(clean) + sum(len(str(tag)) for tag in tags) == len(text)
    assert all(str(tag) in text for tag in tags)
    for tag in tags:
        with suppress(InvalidRequest):
            assert all(math.isfinite(number) for course in lora_weights(tag) for point in course for number in point)


@pytest.mark.parametrize(
    "tag, weights",
    [
        ("<lora:a>", (1.0, 1.0)),
        ("<lora:a:0.7>", (0.7, 0.7)),
        ("<lora:a:0.7:0.2>", (0.7, 0.2)),
        ("<lora:a:unet=0.3>", (1.0, 0.3)),
        ("<lora:a:te=0.3>", (0.3, 0.3)),
        ("<lora:a:-1:te=0>", (0.0, 0.0)),
    ],
)
def test_lora_weights(tag: str, weights: tuple[float, float]) -> None:
    assert lora_weights(extract_networks(tag)[1][0]) == tuple(((weight, 0.0),) for weight in weights)


RISES, FALLS = ((0.0, 0.0), (1.0, 0.5)), ((1.0, 0.0), (0.2, 1.0))


@pytest.mark.parametrize(
    "tag, first, second",
    [
        ("<lora:a:0@0,1@0.5>", (RISES, RISES), (RISES, RISES)),
        ("<lora:a: 1 @ 0.5 ; 0 @ 0 >", (RISES, RISES), (RISES, RISES)),
        ("<lora:a:1:0@0,1@0.5>", (1, RISES), (1, RISES)),
        ("<lora:a:te=0.3:unet=0@0,1@0.5>", (0.3, RISES), (0.3, RISES)),
        ("<lora:a:0@0,1@0.5:hr=1@0,0.2@1>", (RISES, RISES), (FALLS, FALLS)),
        ("<lora:a:0.5:hr=1>", (0.5, 0.5), (1, 1)),
        ("<lora:a:0.5:hrte=0.1>", (0.5, 0.5), (0.1, 0.5)),
        ("<lora:a:te=0.5:unet=0@0,1@0.5:hr=0.7:hrunet=2>", (0.5, RISES), (0.7, 2)),
        ("<lora:a:hrunet=0.4>", (1, 1), (1, 0.4)),
        ("<lora:a:0~0,0.4:hr=>", (((0.0, 0.0), (0.4, 1.0)),) * 2, (((0.0, 0.0), (0.4, 1.0)),) * 2),
        ("<lora:a:0.5@3>", (((0.5, 3.0),), ((0.5, 3.0),)), (((0.5, 3.0),), ((0.5, 3.0),))),
    ],
)
def test_weights_over_the_steps_and_of_the_second_pass(
    tag: str, first: tuple[Any, Any], second: tuple[Any, Any]
) -> None:
    """The form of sd-webui-loractl, from its description."""
    (found,) = extract_networks(tag)[1]
    level = [tuple(each if isinstance(each, tuple) else ((each, 0.0),) for each in part) for part in (first, second)]
    assert [lora_weights(found), lora_weights(found, second_pass=True)] == level


@pytest.mark.parametrize(
    "tag", ["<lora:a:0,1@1>", "<lora:a:1@2@3>", "<lora:a:@>", f"<lora:a:{','.join(['1@1'] * 101)}>"]
)
def test_points_without_a_step_and_too_many_are_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="must be a number"):
        lora_weights(extract_networks(tag)[1][0])


@pytest.mark.parametrize(
    "tag", ["<lora:a:x>", "<lora:a:>", "<lora:a:nan>", "<lora:a:1:inf>", "<lora:a:te=>", "<lora:a:1e999>"]
)
def test_a_weight_that_is_no_finite_number_is_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="must be a number"):
        lora_weights(extract_networks(tag)[1][0])


def test_rank() -> None:
    assert lora_rank(extract_networks("<lora:a:1:1:8>")[1][0]) == 8
    assert lora_rank(extract_networks("<lora:a:dyn=4>")[1][0]) == 4
    assert lora_rank(extract_networks("<lora:a:1>")[1][0]) is None
    with pytest.raises(InvalidRequest, match="whole number"):
        lora_rank(extract_networks("<lora:a:dyn=x>")[1][0])


@pytest.mark.parametrize("piece", ["<a:", "<", "<a", "<a:>", "<lora:x:1>", ">"])
def test_a_megabyte_of_brackets_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    extract_networks(text)
    assert time.process_time() - start < 20  # of a busy machine; a square of the length would take hours
