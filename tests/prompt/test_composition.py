"""AND: what the vectors leave open. Their cases are in test_prompt_vectors.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.prompt import split_composition


@given(st.lists(st.sampled_from([" AND ", "AND", "a", ":", "1.5", "-", " ", "\n", "and"]), max_size=20).map("".join))
def test_every_part_has_its_words_and_a_number(prompt: str) -> None:
    parts = split_composition(prompt)
    assert len(parts) >= 1
    assert all(text == text.rstrip() and isinstance(weight, float) for text, weight in parts)


def test_only_the_word_in_capitals_parts() -> None:
    assert split_composition("sand and BAND a_AND") == [("sand and BAND a_AND", 1.0)]


def test_a_weight_is_the_last_number_after_a_colon() -> None:
    assert split_composition("a:b AND c : 0.5\n") == [("a:b", 1.0), (" c", 0.5)]
    assert split_composition("a:0.5 b AND (c:1.2)") == [("a:0.5 b", 1.0), (" (c:1.2)", 1.0)]
