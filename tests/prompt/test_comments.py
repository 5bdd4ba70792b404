"""Comments: what the vectors leave open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.prompt import strip_comments


@given(st.text(st.sampled_from("a#\n ,"), max_size=30))
def test_nothing_of_a_comment_is_left_and_nothing_else_is_lost(text: str) -> None:
    clean = strip_comments(text)
    assert "#" not in clean
    assert strip_comments(clean) == clean
    kept = "".join(line.partition("#")[0] for line in text.split("\n"))
    assert clean.replace("\n", "") == kept


def test_text_without_comments_is_untouched() -> None:
    assert strip_comments("a\n\n b ") == "a\n\n b "
