"""Tags: what is one, what its numbers are, and what is refused."""

from __future__ import annotations

import math
import time
from contextlib import suppress

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
            assert all(math.isfinite(weight) for weight in lora_weights(tag))


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
    assert lora_weights(extract_networks(tag)[1][0]) == weights


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
    assert time.process_time() - start < 2.0
