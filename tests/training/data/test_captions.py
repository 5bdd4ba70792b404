"""Words of file names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.training.data.captions import captions_in, words_of
from studio.training.data.pictures import Unusable


@pytest.mark.parametrize(
    "name, words",
    [
        ("img/0012-red_fox (2).png", "red fox"),
        ("red fox.jpg", "red fox"),
        ("red-fox__in snow+ice.webp", "red fox in snow ice"),
        ("IMG_0001.JPG", "IMG"),
        ("0001.png", ""),
        ("10_dog/__.png", ""),
        ("a.b.c.png", "a.b.c"),
        ("füchse_7.png", "füchse"),
        ("noending", "noending"),
    ],
)
def test_words_of_a_name(name: str, words: str) -> None:
    assert words_of(name) == words


@given(st.text())
def test_words_of_any_name(name: str) -> None:
    words = words_of(name)
    assert words == " ".join(words.split())
    assert "_" not in words


@given(st.binary(max_size=300))
def test_any_bytes_are_captions_or_refused(data: bytes) -> None:
    try:
        found = captions_in(data)
    except Unusable:
        return
    for caption in found:
        assert caption
        assert caption == caption.strip()
        assert len(caption.splitlines()) == 1
        caption.encode()


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"])).map(str.strip).filter(bool), max_size=9
    )
)
def test_what_is_written_is_read(captions: list[str]) -> None:
    assert captions_in(("\n".join(captions) + "\n").encode()) == tuple(captions)
