"""Names of embeddings in prompts, and their places in chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.prompt import (
    NO_EMBEDDINGS,
    EmbeddingNames,
    PlacedEmbedding,
    chunk_prompt,
    count_longest,
    count_tokens,
    parse_weights,
    shipped_tokenizer,
)

CLIP = shipped_tokenizer()
NAMES = EmbeddingNames({"ink": 2, "Ink Wash": 3, "bad_hands-5": 4, "INK": 60}, CLIP.encode)


@pytest.mark.parametrize(
    "text, names",
    [
        ("an ink drawing", ["ink"]),
        ("INK, iNk", ["ink", "ink"]),
        ("ink   wash and ink", ["Ink Wash", "ink"]),
        ("inks, link", []),
        ("(bad_hands-5:1.2) ink", ["bad_hands-5", "ink"]),
        ("in(k)", []),
        ("ink BREAK (wash)", ["ink"]),
        ("", []),
    ],
)
def test_names_are_found_as_tokens_the_longest_first(text: str, names: list[str]) -> None:
    assert [found.name for found in NAMES.found_in(parse_weights(text))] == names


def test_a_break_is_no_name() -> None:
    names = EmbeddingNames({"break": 2}, CLIP.encode)
    assert names.found_in(parse_weights("a BREAK b")) == []
    assert [found.name for found in names.found_in(parse_weights("a break b"))] == ["break"]


def test_a_name_of_no_tokens_is_never_found() -> None:
    names = EmbeddingNames({" ": 2}, CLIP.encode)
    assert names.found_in([("a b", 1.0)]) == []


def test_places_carry_the_weight_of_the_name() -> None:
    (chunk,) = chunk_prompt(parse_weights("a (ink:1.3) fox"), CLIP, embeddings=NAMES)
    assert chunk.embeddings == (PlacedEmbedding(1, "ink", 2),)
    assert chunk.tokens[:6] == (49406, 320, 0, 0, 3240, 49407)
    assert chunk.weights[:6] == (1.0, 1.0, 1.3, 1.3, 1.0, 1.0)


def test_an_embedding_that_does_not_fit_moves_whole() -> None:
    first, second = chunk_prompt([("cat " * 74 + "ink", 1.0)], CLIP, embeddings=NAMES)
    assert (first.embeddings, second.embeddings) == ((), (PlacedEmbedding(0, "ink", 2),))
    assert first.tokens.index(49407) == 75
    assert len(chunk_prompt([("cat " * 73 + "ink", 1.0)], CLIP, embeddings=NAMES)) == 1


def test_behind_a_comma_the_place_stays_in_the_closed_chunk() -> None:
    """The tokens move, the vectors do not: as AUTOMATIC1111 does it."""
    text = "cat " * 66 + ", dog ink" + " dog" * 5 + " fish"
    first, second = chunk_prompt([(text, 1.0)], CLIP, embeddings=NAMES)
    assert first.tokens.index(49407) == 1 + 67
    assert first.embeddings == (PlacedEmbedding(68, "ink", 2),)
    assert second.tokens[:5] == (49406, 1929, 0, 0, 1929)
    assert second.embeddings == ()


def test_the_counter_counts_vectors() -> None:
    assert count_tokens("an ink fox", CLIP, NAMES) == (4, 75)
    assert count_tokens("an ink fox", CLIP) == (3, 75)
    assert count_longest("[fox:ink wash ink wash:0.5]", CLIP, NAMES) == (6, 75)
    assert count_tokens("cat " * 74 + "ink", CLIP, NAMES) == (77, 150)


words = st.sampled_from(["ink", "ink wash", "Bad_Hands-5", "cat", ",", "(", ")", "BREAK", "[", "]", "x:1.2)"])


@given(st.lists(words, max_size=120).map(" ".join))
def test_nothing_is_lost_and_nothing_is_split(text: str) -> None:
    parts = [(text, weight) for text, weight in parse_weights(text)]
    chunks = chunk_prompt(parts, CLIP, embeddings=NAMES)
    found = NAMES.found_in(parts)
    placed = [place for chunk in chunks for place in chunk.embeddings]
    assert [place.name for place in placed] == [each.name for each in found]
    assert all(place.offset + place.vectors <= 75 for place in placed)
    assert all(len(chunk.tokens) == len(chunk.weights) == 77 for chunk in chunks)
    plain = sum(len(CLIP.encode(part)) for part, weight in parts if (part, weight) != ("BREAK", -1.0))
    kept = sum(chunk.tokens.index(49407) - 1 for chunk in chunks)
    assert kept == plain + sum(each.vectors - len(each.ids) for each in found)


def test_without_embeddings_nothing_changes() -> None:
    parts = parse_weights("a (red:1.2) fox, " * 30)
    assert chunk_prompt(parts, CLIP) == chunk_prompt(parts, CLIP, embeddings=NO_EMBEDDINGS)
