"""What a prompt comes to: told by hand for small prompts, and equal to what is encoded for all."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.prompt import (
    NO_EMBEDDINGS,
    ClipTokenizer,
    EmbeddingNames,
    active_stretch,
    chunk_prompt,
    parse_schedule,
    parse_weights,
    shipped_tokenizer,
    split_composition,
)
from studio.prompt.inspect import (
    LOOKED_THROUGH,
    SHOWN_BRANCHES,
    SHOWN_CHUNKS,
    SHOWN_WORDINGS,
    PromptView,
    WordingView,
    inspect_prompt,
)
from tests.vector_files import load_json

EOS = 49407


@cache
def clip() -> ClipTokenizer:
    return shipped_tokenizer()


def look(text: str, calls: int = 20, **rules: Any) -> PromptView:
    given_rules: dict[str, Any] = {"emphasis": "Original", "old": False, "composed": True, **rules}
    return inspect_prompt(text, calls, tokenizer=clip(), **given_rules)


def only(text: str, **rules: Any) -> WordingView:
    (branch,) = look(text, **rules).branches
    (wording,) = branch.wordings
    return wording


def told(wording: WordingView) -> list[list[tuple[str, float]]]:
    return [[(token.text, round(token.weight, 4)) for token in chunk.tokens] for chunk in wording.chunks]


def test_tokens_with_their_final_weights() -> None:
    wording = only("a ((red)) fox, [faint] (bold:1.5)")
    assert told(wording) == [[("a", 1.0), ("red", 1.21), ("fox", 1.0), (",", 1.0), ("faint", 0.9091), ("bold", 1.5)]]
    assert (wording.tokens, wording.more_chunks, wording.own) == (6, 0, "")
    assert (wording.chunks[0].padding, wording.chunks[0].ended) == (69, "end")


def test_parts_of_words_and_of_characters() -> None:
    (chunk,) = only("Crumbling 狐 🦊!").chunks
    assert [(token.text, token.joined) for token in chunk.tokens] == [
        ("cru", True), ("mbling", False), ("狐", True), ("", True), ("", False), ("🦊", True), ("", True), ("!", False)
    ]  # fmt: skip


@cache
def names() -> EmbeddingNames:
    return EmbeddingNames({"ink": 2, "Ink Wash": 3, "bad_hands-5": 40, "one": 1}, clip().encode)


def with_names(text: str, **rules: Any) -> WordingView:
    return only(text, embeddings=names(), **rules)


def test_embeddings_are_one_box_each() -> None:
    wording = with_names("a (INK:1.3) fox, ink  wash one")
    assert [(token.text, token.vectors, token.weight) for token in wording.chunks[0].tokens] == [
        ("a", 0, 1.0), ("ink", 2, 1.3), ("fox", 0, 1.0), (",", 0, 1.0), ("Ink Wash", 3, 1.0), ("one", 1, 1.0)
    ]  # fmt: skip
    assert (wording.tokens, wording.chunks[0].padding) == (9, 66)
    assert [token.weight for token in with_names("(ink:1.3)", emphasis="Ignore").chunks[0].tokens] == [1.0]
    assert [token.vectors for token in only("ink").chunks[0].tokens] == [0]


@pytest.mark.parametrize(
    "text, chunks",
    [
        ("ink wash BREAK fox", [(3, "BREAK"), (1, "end")]),
        ("bad_hands-5 BREAK bad_hands-5", [(40, "BREAK"), (40, "end")]),
        ("bad_hands-5, bad_hands-5 fox BREAK a", [(41, "embedding"), (41, "BREAK"), (1, "end")]),
        ("fox " * 73 + "ink BREAK fox", [(75, "BREAK"), (1, "end")]),
        ("fox " * 73 + "ink fox", [(75, "full"), (1, "end")]),
        ("fox " * 74 + "ink BREAK BREAK a", [(74, "embedding"), (2, "BREAK"), (0, "BREAK"), (1, "end")]),
        ("fox " * 60 + ", ink " + "owl " * 13 + "BREAK ink", [(61, "comma"), (15, "BREAK"), (2, "end")]),
        ("fox " * 60 + ", bad_hands-5 ink", [(61, "embedding"), (42, "end")]),
    ],
)
def test_why_chunks_with_embeddings_end(text: str, chunks: list[tuple[int, str]]) -> None:
    shown = with_names(text).chunks
    assert [(75 - chunk.padding, chunk.ended) for chunk in shown] == chunks


def test_vectors_that_stay_in_the_padding() -> None:
    """As the chunks have it: behind the comma of a cut the tokens move, the vectors do not."""
    first, second = with_names("fox " * 60 + ", (ink:1.3) " + "owl " * 13).chunks
    assert [(token.text, token.vectors, token.weight) for token in first.in_padding] == [("ink", 2, 1.0)]
    assert [(token.text, token.vectors, token.weight) for token in second.tokens[:3]] == [
        ("!", 0, 1.3), ("!", 0, 1.3), ("owl", 0, 1.0)
    ]  # fmt: skip
    assert (first.padding, second.padding, second.in_padding) == (14, 60, ())


def test_names_are_looked_for_whether_or_not_they_are_used() -> None:
    view = look("ink [wash:ink wash:3] (one ink:1.2) BREAK", names=names())
    assert view.named == {"ink": 3, "Ink Wash": 2, "one": 2}
    assert [token.vectors for token in view.branches[0].wordings[0].chunks[0].tokens] == [0] * 4


@pytest.mark.parametrize(
    "text, chunks",
    [
        ("", [(0, "end")]),
        ("a BREAK b", [(1, "BREAK"), (1, "end")]),
        ("a BREAK BREAK b", [(1, "BREAK"), (0, "BREAK"), (1, "end")]),
        ("BREAK a", [(0, "BREAK"), (1, "end")]),
        ("a BREAK", [(1, "BREAK")]),
        ("fox " * 75, [(75, "end")]),
        ("fox " * 76, [(75, "full"), (1, "end")]),
        ("fox " * 75 + "BREAK fox", [(75, "BREAK"), (1, "end")]),
        ("fox " * 76 + "BREAK fox", [(75, "full"), (1, "BREAK"), (1, "end")]),
        ("fox " * 60 + ", " + "owl " * 20, [(61, "comma"), (20, "end")]),
        ("fox " * 60 + ", " + "owl " * 20 + "BREAK", [(61, "comma"), (20, "BREAK")]),
        ("a <|endoftext|> b", [(3, "end")]),
    ],
)
def test_why_chunks_end(text: str, chunks: list[tuple[int, str]]) -> None:
    assert [(75 - chunk.padding, chunk.ended) for chunk in only(text).chunks] == chunks
    assert all(len(chunk.tokens) + chunk.padding == 75 for chunk in only(text).chunks)


def test_break_in_a_weight_is_a_word() -> None:
    assert look("a (b BREAK c:1.2)").breaks_in_weights
    assert not look("a BREAK (c:1.2) BREAKFAST").breaks_in_weights


def test_emphasis_modes() -> None:
    assert told(only("(red:1.5)", emphasis="No norm")) == [[("red", 1.5)]]
    assert told(only("(red:1.5) [a]", emphasis="Ignore")) == [[("red", 1.0), ("a", 1.0)]]
    plain = only("(red BREAK", emphasis="None")
    assert told(plain) == [[("(", 1.0), ("red", 1.0), ("break", 1.0)]]
    assert not look("(red BREAK", emphasis="None").breaks_in_weights


def test_wordings_over_the_steps() -> None:
    (branch,) = look("a [red:blue and green:0.5] fox", 10).branches
    assert [(each.first, each.last, each.wording) for each in branch.segments] == [(1, 6, 0), (7, 10, 1)]
    assert [wording.own for wording in branch.wordings] == ["red", "blue and green"]
    assert [wording.text for wording in branch.wordings] == ["a red fox", "a blue and green fox"]


def test_turns_come_again() -> None:
    (branch,) = look("[cat|dog|] sits", 6).branches
    assert [(each.first, each.last, each.wording) for each in branch.segments] == [
        (1, 2, 0), (3, 3, 1), (4, 4, 2), (5, 5, 0), (6, 6, 1)
    ]  # fmt: skip
    assert [wording.own for wording in branch.wordings] == ["cat", "dog", ""]


def test_old_editing_reads_numbers_otherwise() -> None:
    (new,), (old,) = look("[a:b:2.0]", 10).branches, look("[a:b:2.0]", 10, old=True).branches
    assert new.segments[0].last == 10
    assert old.segments[0].last == 3


def test_parts_with_weights() -> None:
    view = look("a fox :1.5 AND snow AND [sun:moon:3] :-0.5")
    assert [branch.weight for branch in view.branches] == [1.5, 1.0, -0.5]
    assert [len(branch.wordings) for branch in view.branches] == [1, 1, 2]
    assert len(look("a fox AND snow", composed=False).branches) == 1


def test_a_bad_weight_is_told_and_the_text_is_still_shown() -> None:
    view = look("[(red:1.2.3):(b:..):3] (fox:1.2)")
    assert view.bad_weights == ["1.2.3", ".."]
    assert ("fox", 1.0) in told(view.branches[0].wordings[0])[0]


def test_what_is_told_is_bounded() -> None:
    long = only("word " * 2000)
    assert (long.tokens, len(long.chunks), long.more_chunks) == (2000, SHOWN_CHUNKS, 27 - SHOWN_CHUNKS)
    assert len(long.text) <= 160
    many = look(" AND ".join("abcdefghijklmnopqrstuvwxyz"))
    assert (len(many.branches), many.more_branches) == (SHOWN_BRANCHES, 26 - SHOWN_BRANCHES)
    edits = "".join(f"[w{step}:x:{step}]" for step in range(1, 101))
    wordings = look(f"{edits} AND {edits}", 150).branches
    assert [len(branch.wordings) for branch in wordings] == [SHOWN_WORDINGS, 0]
    assert wordings[0].more_wordings == max(each.wording for each in wordings[0].segments) + 1 - SHOWN_WORDINGS
    huge = look("[a|b|c|d|e] " + "x" * (LOOKED_THROUGH // 3)).branches[0]
    assert (len(huge.wordings), huge.more_wordings) == (2, 3)
    assert len(look("x" * (LOOKED_THROUGH + 1)).branches[0].wordings) == 1


WORDS = st.sampled_from(
    ["fox", "unbelievable", ",", "(red:1.3)", "((", "))", "[", "]", "[cat:dog:0.5]", "[a|(b:1.2)]", "BREAK", "AND", ":0.5",
     "ink", "Ink wash", "bad_hands-5", "!", "狐", "🦊", r"\(", "fox fox fox fox fox fox fox fox fox fox fox fox", "<|endoftext|>", "|", "(x:-1)"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=60).map(" ".join), st.sampled_from([1, 7, 40]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_tokens_and_weights_are_those_that_are_encoded(text: str, calls: int, has_embeddings: bool) -> None:
    known = names() if has_embeddings else NO_EMBEDDINGS
    view = look(text, calls, embeddings=known)
    parts = split_composition(text)[:SHOWN_BRANCHES]
    assert [branch.weight for branch in view.branches] == [weight for _, weight in parts]
    for branch, (part, _) in zip(view.branches, parts, strict=True):
        stretches = parse_schedule(part, calls)
        ends = [stretch.until for stretch in stretches]
        by_call = [stretches[active_stretch(ends, call)].text for call in range(calls)]
        encoded = {text: chunk_prompt(parse_weights(text), clip(), embeddings=known) for text in set(by_call)}
        segments = {call: each for each in branch.segments for call in range(each.first, each.last + 1)}
        assert sorted(segments) == list(range(1, calls + 1))
        for call, wording in enumerate(by_call, 1):
            if segments[call].wording >= len(branch.wordings):
                continue
            shown = branch.wordings[segments[call].wording]
            chunks = encoded[wording]
            assert len(chunks) == len(shown.chunks) + shown.more_chunks
            for chunk, card in zip(chunks, shown.chunks, strict=False):
                sizes = [token.vectors or 1 for token in card.tokens]
                count = sum(sizes)
                weights = [token.weight for token, size in zip(card.tokens, sizes, strict=True) for _ in range(size)]
                assert chunk.weights == (1.0, *weights, *[1.0] * (76 - count))
                assert set(chunk.tokens[count + 1 :]) == {EOS}
                assert card.padding == 75 - count
                offsets = [sum(sizes[:place]) for place, token in enumerate(card.tokens) if token.vectors]
                boxes = [*(token for token in card.tokens if token.vectors), *card.in_padding]
                assert [(placed.name, placed.vectors) for placed in chunk.embeddings] == [
                    (token.text, token.vectors) for token in boxes
                ]
                assert [placed.offset for placed in chunk.embeddings][: len(offsets)] == offsets
                assert all(placed.offset >= count for placed in chunk.embeddings[len(offsets) :])
            endings = [card.ended for card in shown.chunks]
            breaks = sum(part == ("BREAK", -1) for part in parse_weights(wording))
            assert endings.count("BREAK") == breaks or shown.more_chunks
            assert shown.tokens >= sum(75 - card.padding for card in shown.chunks)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in load_json("chunks.json")["prompts"]
        if not case.get("needs_ftfy") and not any("embeddings" in chunk for chunk in case["chunks"])
    ],
    ids=lambda case: repr(case["text"])[:40],
)
def test_vectors_chunks(case: dict[str, Any]) -> None:
    """As many tokens of the same weights in each chunk as AUTOMATIC1111 has, where the prompt reads the same all the time."""
    if [stretch.text for stretch in parse_schedule(case["text"], 20)] != [case["text"]]:
        return
    prompt = look(case["text"], composed=False).branches[0].wordings[0]
    assert len(case["chunks"]) == len(prompt.chunks) + prompt.more_chunks
    for wanted, chunk in zip(case["chunks"], prompt.chunks, strict=False):
        weights = [weight for weight, count in wanted["multipliers_rle"] for _ in range(count)]
        count = len(chunk.tokens)
        assert [token.weight for token in chunk.tokens] == pytest.approx(weights[1 : count + 1], rel=1e-12)
        assert weights[count + 1 :] == [1.0] * (76 - count)
        if EOS not in wanted["tokens"]:
            assert (count, chunk.padding) == (len(wanted["tokens"]) - 1, wanted["pad_count"] - 1)
