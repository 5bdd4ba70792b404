"""Embeddings that a text names by hash, found again under another name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.infotext import parse_infotext
from studio.infotext.dialects import named_embeddings
from studio.infotext.embeddings import in_prompt, with_embeddings

A, B, C = "c74b4e810b03", "111111111111", "222222222222"
LINE = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, RNG: CPU"


@pytest.mark.parametrize(
    "prompt, named, local, expected",
    [
        ("(EasyNegative:1.2), cat", {"easynegative": A}, {"en2": A}, "(en2:1.2), cat"),
        ("easy, easynegatives, myeasynegative", {"easynegative": A}, {"en2": A}, "easy, easynegatives, myeasynegative"),
        ("<lora:soft:1> soft <lora:soft>", {"soft": A}, {"wash": A}, "<lora:soft:1> wash <lora:soft>"),
        ("soft   wash, soft", {"soft wash": A, "soft": B}, {"x": A, "y": B}, "x, y"),
        ("a, b", {"a": A, "b": B}, {"b": A, "a": B}, "b, a"),
        (r"soft \(v2\)", {"soft (v2)": A}, {"wash [x]": A}, r"wash \[x\]"),
        ("soft", {"soft": A}, {"soft": A, "copy": A}, "soft"),
        ("soft", {"soft": A[:10]}, {"wash": A}, "wash"),
        ("soft", {"soft": A + "0" * 52}, {"wash": A}, "wash"),
        ("soft", {"soft": A}, {"soft": B}, "soft"),
        ("soft", {"soft": A}, {"wash": ""}, "soft"),
        ("soft", {"soft": ""}, {"wash": A}, "soft"),
    ],
)
def test_words_become_those_of_local_files(
    prompt: str, named: dict[str, str], local: dict[str, str], expected: str
) -> None:
    (found, other), _ = with_embeddings((prompt, prompt), named, local)
    assert found == other == expected


def test_notes_say_what_was_changed_and_what_is_missing() -> None:
    assert with_embeddings(("soft", ""), {"soft": A}, {"wash": A})[1] == [
        "Embeddings were pointed at local files with the same hash."
    ]
    assert with_embeddings(("soft", ""), {"soft": A, "Wash": B, "old": ""}, {"wash": C})[1] == [
        f"Embeddings (TI hashes) that are not here, so that their names are ordinary words: soft {A}; old."
    ]
    (note,) = with_embeddings(("", ""), {f"e{number}": "" for number in range(20)}, {})[1]
    assert note.endswith("e11 and 8 more.")


def test_a_name_that_lost_its_separators_is_still_known() -> None:
    assert with_embeddings(("soft, wash", ""), {"soft wash": A}, {"soft, wash": A}) == (("soft, wash", ""), [])


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ({"TI hashes": f"easynegative: {A}, bad: {B}"}, {"easynegative": A, "bad": B}),
        ({"TI": "one, two", "TI hashes": f"two: {A}"}, {"one": "", "two": A}),
        (
            {"Hashes": json.dumps({"embed:soft": A[:10].upper(), "lora:x": B, "embed:odd": 5})},
            {"soft": A[:10], "odd": ""},
        ),
        ({"TI hashes": "soft: no hash"}, {"soft": ""}),
        ({}, {}),
    ],
)
def test_what_a_text_names(pairs: dict[str, str], expected: dict[str, str]) -> None:
    assert named_embeddings(pairs) == expected


def test_both_prompts_of_a_text_are_read_so() -> None:
    text = f'a soft fox\nNegative prompt: (soft:1.1)\n{LINE}, TI hashes: "soft: {A}"'
    parsed = parse_infotext(text, embeddings={"__wash__": A})
    assert (parsed.prompt, parsed.negative_prompt) == ("a soft fox", "(soft:1.1)")
    assert parsed.request["prompt"] == r"a \__wash\__ fox"
    assert parsed.request["negative_prompt"] == r"(\__wash\__:1.1)"
    assert parsed.notes == ["Embeddings were pointed at local files with the same hash."]
    assert parse_infotext(text, embeddings={"soft": A}).notes == []


@given(st.text(max_size=60), st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_any_text_and_names_are_taken(prompt: str, word: str, other: str) -> None:
    (found, _), _ = with_embeddings((prompt, ""), {word: A}, {other: A})
    assert found == prompt or in_prompt(other) in found
