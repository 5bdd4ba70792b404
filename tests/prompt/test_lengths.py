"""Whether prompt and negative prompt have different numbers of chunks at some model call."""

from __future__ import annotations

import pytest

from studio.prompt.lengths import lengths_differ
from studio.schema.resolved import PromptBranch

LONG, SHORT = (("fox " * 100, 1.0),), (("fox", 1.0),)


def branch(*texts: tuple[tuple[str, float], ...], ends: tuple[int, ...] = (10,)) -> PromptBranch:
    return PromptBranch(texts=texts, stretches=tuple((end, place) for place, end in enumerate(ends)))


@pytest.mark.parametrize(
    "positive, negative, differ",
    [
        ([branch(SHORT)], branch(SHORT), False),
        ([branch(LONG)], branch(LONG), False),
        ([branch(LONG)], branch(SHORT), True),
        ([branch(SHORT)], branch(LONG), True),
        ([branch(SHORT), branch(LONG)], branch(LONG), False),  # the longest part counts
        ([branch(SHORT), branch(LONG)], branch(SHORT), True),
        ([branch(SHORT, LONG, ends=(4, 10))], branch(SHORT), True),
        ([branch(SHORT, LONG, ends=(4, 10))], branch(SHORT, LONG, ends=(4, 10)), False),
        ([branch(SHORT, LONG, ends=(4, 10))], branch(SHORT, LONG, ends=(5, 10)), True),
    ],
)
def test_at_some_call(positive: list[PromptBranch], negative: PromptBranch, differ: bool) -> None:
    assert lengths_differ(positive, negative) is differ


def test_embeddings_count_with_their_vectors() -> None:
    words = branch((("soft " * 40, 1.0),))
    assert not lengths_differ([words], branch(SHORT))
    assert lengths_differ([words], branch(SHORT), {"soft": 2})
