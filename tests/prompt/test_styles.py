"""Styles: what the vectors leave open. Their cases are in test_prompt_vectors.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InvalidRequest
from studio.prompt import Style, apply_styles, extract_style, recognise_styles

INK = Style("ink", "ink drawing of {prompt}", "photo")
GOOD = Style("good", "masterpiece", "")
EMPTY = Style("empty")
WORDS = st.text(st.sampled_from("ab, {}"), max_size=12)


def test_a_comment_does_not_swallow_the_style() -> None:
    assert apply_styles("a # c", ["b"]) == "a, b"


def test_placeholders_cannot_blow_a_prompt_up() -> None:
    with pytest.raises(InvalidRequest, match="characters") as caught:
        apply_styles("a fox", ["{prompt} {prompt}"] * 50)
    assert caught.value.field == "styles"


def test_a_prompt_shorter_than_the_style_is_not_it() -> None:
    assert extract_style("ab{prompt}ba", "aba") == (False, "aba")


def test_merged_styles_are_recognised_in_their_order() -> None:
    prompt, negative = "a fox", "blurry"
    for style in (GOOD, INK):
        prompt, negative = apply_styles(prompt, [style.prompt]), apply_styles(negative, [style.negative_prompt])
    assert recognise_styles(prompt, negative, [EMPTY, INK, GOOD]) == ("a fox", "blurry", ("good", "ink"))


def test_a_style_needs_both_of_its_texts() -> None:
    assert recognise_styles("ink drawing of a fox", "blurry", [INK]) == ("ink drawing of a fox", "blurry", ())


def test_the_end_of_a_word_is_no_style() -> None:
    assert recognise_styles("a fox", "", [Style("x", "x")]) == ("a fox", "", ())


@given(WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=4))
def test_what_is_recognised_merges_to_the_same(prompt: str, negative: str, texts: list[tuple[str, str]]) -> None:
    styles = {str(number): Style(str(number), *pair) for number, pair in enumerate(texts)}
    rest, rest_negative, names = recognise_styles(prompt, negative, styles.values())
    if names:
        assert apply_styles(rest, [styles[name].prompt for name in names]) == prompt
        assert apply_styles(rest_negative, [styles[name].negative_prompt for name in names]) == negative
    else:
        assert (rest, rest_negative) == (prompt, negative)
