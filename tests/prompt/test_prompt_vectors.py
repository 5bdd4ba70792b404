"""Prompts against AUTOMATIC1111's results: tests/vectors/prompts.json and chunks.json, every case."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest

from studio.errors import InvalidRequest
from studio.prompt import (
    ClipTokenizer,
    EmbeddingNames,
    active_stretch,
    apply_styles,
    chunk_prompt,
    count_tokens,
    extract_networks,
    extract_style,
    lora_rank,
    lora_weights,
    parse_schedule,
    parse_weights,
    shipped_tokenizer,
    split_composition,
    strip_comments,
)
from tests.vector_files import load_json

SCHEDULES: dict[str, dict[str, Any]] = {
    "schedule_10": {"steps": 10},
    "schedule_20": {"steps": 20},
    "schedule_10_hires_10": {"steps": 10, "before": 10},
    "schedule_20_hires_15": {"steps": 15, "before": 20},
    "schedule_10_old_scheduling": {"steps": 10, "old": True},
}


@cache
def prompts() -> list[dict[str, Any]]:
    return list(load_json("prompts.json")["prompts"])


@cache
def chunked() -> list[dict[str, Any]]:
    return list(load_json("chunks.json")["prompts"])


@cache
def clip() -> ClipTokenizer:
    return shipped_tokenizer()


@cache
def embeddings() -> EmbeddingNames:
    """Those that the reference knew, in all cases."""
    return EmbeddingNames({each["name"]: each["vectors"] for each in load_json("chunks.json")["embeddings"]})


@pytest.mark.parametrize("case", prompts(), ids=lambda case: repr(case["text"])[:40])
def test_vectors_attention(case: dict[str, Any]) -> None:
    if isinstance(case["attention"], dict):
        with pytest.raises(InvalidRequest):
            parse_weights(case["text"])
        return
    got = parse_weights(case["text"])
    assert [text for text, _ in got] == [text for text, _ in case["attention"]]
    for (_, weight), (_, wanted) in zip(got, case["attention"], strict=True):
        assert math.isclose(weight, wanted, rel_tol=1e-12)


@pytest.mark.parametrize("case", prompts(), ids=lambda case: repr(case["text"])[:40])
def test_vectors_schedule(case: dict[str, Any]) -> None:
    """`schedule_N`, with `_hires_M` for a second pass of M steps and `_old_scheduling` for the rule before 1.6.0."""
    assert {key for key in case if key.startswith("schedule_")} <= set(SCHEDULES)
    for name, how in SCHEDULES.items():
        if name in case:
            got = [[stretch.until, stretch.text] for stretch in parse_schedule(case["text"], **how)]
            assert got == case[name], name
    if wanted := case.get("active_entry_by_call_10"):
        ends = [stretch.until for stretch in parse_schedule(case["text"], 10)]
        assert [active_stretch(ends, call) for call in range(len(wanted))] == wanted


@pytest.mark.parametrize(
    "case", [case for case in prompts() if "multicond" in case], ids=lambda case: repr(case["text"])[:40]
)
def test_vectors_composition(case: dict[str, Any]) -> None:
    (indexes,) = case["multicond"]["indexes"]
    assert split_composition(case["text"]) == [(case["multicond"]["flat"][index], weight) for index, weight in indexes]


@pytest.mark.parametrize("case", prompts(), ids=lambda case: repr(case["text"])[:40])
def test_vectors_comments(case: dict[str, Any]) -> None:
    assert strip_comments(case["text"]) == case.get("comments_stripped", case["text"])


@pytest.mark.parametrize("case", load_json("prompts.json")["apply_styles"], ids=lambda case: repr(case["prompt"])[:40])
def test_vectors_apply_styles(case: dict[str, Any]) -> None:
    assert apply_styles(case["prompt"], case["styles"]) == case["result"]


@pytest.mark.parametrize("case", load_json("prompts.json")["extract_style"], ids=lambda case: repr(case["prompt"])[:40])
def test_vectors_extract_style(case: dict[str, Any]) -> None:
    assert extract_style(case["style"], case["prompt"]) == (case["found"], case["result"])


def check_networks(prompts: list[str], expected: dict[str, Any]) -> None:
    """Only the first prompt's tags count."""
    extracted = [extract_networks(prompt) for prompt in prompts]
    assert [clean for clean, _ in extracted] == expected["prompts"]
    tags = extracted[0][1]
    assert {tag.kind for tag in tags} == set(expected["networks"])
    for kind, wanted in expected["networks"].items():
        got = [tag for tag in tags if tag.kind == kind]
        assert [list(tag.items) for tag in got] == [entry["items"] for entry in wanted]
        assert [list(tag.positional) for tag in got] == [entry["positional"] for entry in wanted]
        assert [tag.named for tag in got] == [entry["named"] for entry in wanted]
    if "lora_multipliers" not in expected:
        return
    loras = [tag for tag in tags if tag.kind == "lora"]
    if isinstance(expected["lora_multipliers"], dict):
        with pytest.raises(InvalidRequest):
            [lora_weights(tag) for tag in loras]
        return
    weights = [tuple(course[0][0] for course in lora_weights(tag)) for tag in loras]
    got = [{"name": tag.name, "weights": each, "dyn": lora_rank(tag)} for tag, each in zip(loras, weights, strict=True)]
    assert got == [
        {"name": w["name"], "weights": (w["te"], w["unet"]), "dyn": w["dyn"]} for w in expected["lora_multipliers"]
    ]


@pytest.mark.parametrize("case", prompts(), ids=lambda case: repr(case["text"])[:40])
def test_vectors_extra_networks(case: dict[str, Any]) -> None:
    check_networks([case["text"]], case["extra_networks"])


@pytest.mark.parametrize("case", load_json("prompts.json")["batches"], ids=lambda case: repr(case["prompts"])[:40])
def test_vectors_extra_networks_of_a_batch(case: dict[str, Any]) -> None:
    check_networks(case["prompts"], case["extra_networks"])


@pytest.mark.parametrize("case", chunked(), ids=lambda case: repr(case["text"])[:40])
def test_vectors_token_ids(case: dict[str, Any]) -> None:
    """Where the classic tokenizer repairs the text with ftfy first, ours gives what transformers 5 gives."""
    key = "plain_ids_transformers5" if case.get("needs_ftfy") else "plain_ids"
    assert clip().encode(case["text"]) == case[key]


@pytest.mark.parametrize(
    "case",
    [case for case in chunked() if not case.get("needs_ftfy")],
    ids=lambda case: repr(case["text"])[:40],
)
def test_vectors_chunks(case: dict[str, Any]) -> None:
    chunks = chunk_prompt(parse_weights(case["text"]), clip(), embeddings=embeddings())
    assert len(chunks) == len(case["chunks"])
    for chunk, wanted in zip(chunks, case["chunks"], strict=True):
        assert list(chunk.padded_with(wanted["pad_id"])) == wanted["tokens"] + [wanted["pad_id"]] * wanted["pad_count"]
        weights = [weight for weight, count in wanted["multipliers_rle"] for _ in range(count)]
        assert len(weights) == len(chunk.weights)
        assert all(math.isclose(got, want, rel_tol=1e-12) for got, want in zip(chunk.weights, weights, strict=True))
        assert [vars(place) for place in chunk.embeddings] == wanted.get("embeddings", [])
    for chunk, wanted in zip(chunks, case["clip_g_chunks"], strict=True):
        ids = list(chunk.padded_with(wanted["pad_id"]))
        used = len(ids) - wanted["pad_count"]
        assert set(ids[used:]) <= {wanted["pad_id"]}
        assert ids[:used][-len(wanted["tokens_tail"]) :] == wanted["tokens_tail"]
    assert count_tokens(case["text"], clip(), embeddings()) == (case["token_count"], case["counter_limit"])


def test_vectors_special_ids() -> None:
    special = load_json("chunks.json")["special"]
    empty = chunk_prompt([("", 1.0)], clip())[0]
    assert empty.tokens[:2] == (special["bos"], special["eos"])
    assert empty.padded_with(special["pad_clip_l"]) == empty.tokens
    assert empty.padded_with(special["pad_clip_g"])[2] == special["pad_clip_g"]
    assert clip().encode("a,")[-1] == special["comma"]
