"""Chunks and counting; the table of AUTOMATIC1111's results is in test_prompt_vectors.py."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.prompt import ClipTokenizer, chunk_prompt, count_tokens, parse_weights, shipped_tokenizer

COMMA = 267


class Words:
    """One token a word: its number, or the comma's."""

    def encode(self, text: str) -> list[int]:
        return [COMMA if word == "," else int(word) for word in text.split()]


@cache
def clip() -> ClipTokenizer:
    return shipped_tokenizer()


PARTS = st.lists(
    st.tuples(
        st.lists(st.one_of(st.integers(1000, 2000).map(str), st.just(",")), max_size=90).map(" ".join),
        st.sampled_from([1.0, 1.1, 0.5]),
    )
    | st.just(("BREAK", -1.0)),
    max_size=6,
)


@given(PARTS, st.sampled_from([0, 1, 20, 74]))
@settings(deadline=2000)
def test_every_token_is_kept_once_in_order(parts: list[tuple[str, float]], backtrack: int) -> None:
    chunks = chunk_prompt(parts, Words(), backtrack=backtrack)
    assert chunks
    wanted = [(token, weight) for text, weight in parts if text != "BREAK" for token in Words().encode(text)]
    got = []
    for chunk in chunks:
        assert len(chunk.tokens) == len(chunk.weights) == 77
        assert chunk.tokens[0] == 49406
        end = chunk.tokens.index(49407)
        assert set(chunk.tokens[end:]) == {49407}
        assert chunk.weights[0] == 1.0
        assert set(chunk.weights[end:]) == {1.0}
        got += list(zip(chunk.tokens[1:end], chunk.weights[1:end], strict=True))
    assert got == wanted


def test_a_phrase_moves_on_after_a_near_comma() -> None:
    text = " ".join(["1"] * 60 + [","] + ["2"] * 20)
    first, second = chunk_prompt([(text, 1.0)], Words())
    assert first.tokens.index(49407) == 62
    assert second.tokens[1:21] == (2,) * 20
    assert first.padded_with(0)[61:64] == (COMMA, 49407, 0)
    assert len(chunk_prompt([(text, 1.0)], Words(), backtrack=10)[1].padded_with(0)) == 77


def test_a_comma_just_out_of_reach_stays() -> None:
    text = " ".join(["1"] * 54 + [","] + ["2"] * 30)
    first, second = chunk_prompt([(text, 1.0)], Words())
    assert first.tokens[75] == 2
    assert second.tokens.index(49407) == 11


@pytest.mark.parametrize(
    "text, used, limit",
    [("", 0, 75), ("a cat", 2, 75), ("a cat <lora:x:1>", 2, 75), ("a BREAK b", 76, 150), ("cat " * 76, 76, 150)],
)
def test_the_counter(text: str, used: int, limit: int) -> None:
    assert count_tokens(text, clip()) == (used, limit)


@given(st.text(max_size=100))
@settings(deadline=2000)
def test_the_tokenizer_takes_any_text(text: str) -> None:
    ids = clip().encode(text)
    assert all(0 <= token < 49408 for token in ids)


def test_the_tokenizer_ignores_case_and_amount_of_space() -> None:
    assert clip().encode("A  Cat\n") == clip().encode("a cat")


def test_a_long_prompt_is_counted_quickly() -> None:
    parts = parse_weights("word, " * 8_000)
    assert sum(len(set(chunk.tokens)) > 1 for chunk in chunk_prompt(parts, clip())) == len(chunk_prompt(parts, clip()))
