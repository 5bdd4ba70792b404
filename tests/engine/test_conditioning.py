"""Prompts to conditions: chunks, emphasis, the zeros of SDXL, and the memory."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from studio.engine import conditioning
from studio.engine.conditioning import CACHED_PROMPTS, Conditioner
from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.text_encoders import TextStates, encode_tokens
from studio.prompt import chunk_prompt, shipped_tokenizer
from tests.tiny_models import tiny_info

TOKENIZER = shipped_tokenizer()


@functools.cache
def loaded(family: str) -> LoadedModel:
    return load_checkpoint(tiny_info(family), torch.device("cpu"), torch.float32)


def encode(conditioner: Conditioner, *parts: tuple[str, float], **changes: Any) -> TextStates:
    settings: dict[str, Any] = {"clip_skip": 1, "emphasis": "Original", "weights": (), "is_negative": False, **changes}
    return conditioner.encode(parts, **settings)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_chunk_is_encoded_alone_and_joined_on_the_token_axis(family: str) -> None:
    model = loaded(family)
    parts = (("a red fox", 1.0), ("BREAK", -1.0), ("a house", 1.0))
    got = encode(Conditioner(model, TOKENIZER), *parts)
    assert got.joined().shape == (1, 154, model.unet.config.cross_attention_dim)
    alone = [
        encode_tokens(model, torch.tensor([chunk_prompt([part], TOKENIZER)[0].tokens])) for part in (parts[0], parts[2])
    ]
    torch.testing.assert_close(got.joined(), torch.cat([states.joined() for states in alone], dim=1))
    if family == "sdxl":
        assert got.pooled is not None
        torch.testing.assert_close(got.pooled, alone[0].pooled)


def test_emphasis_keeps_the_mean_of_each_chunk_and_encoder() -> None:
    model, parts = loaded("sdxl"), (("a red fox", 1.0), ("BREAK", -1.0), ("a house", 1.0))
    weighted = tuple((text, -1.0 if text == "BREAK" else 2.0) for text, _ in parts)
    plain, strong = (encode(Conditioner(model, TOKENIZER), *chosen) for chosen in (parts, weighted))
    for before, after in zip(plain.states, strong.states, strict=True):
        assert not torch.allclose(before, after)
        for chunk in (slice(0, 77), slice(77, 154)):
            torch.testing.assert_close(before[:, chunk].mean(), after[:, chunk].mean())
    assert torch.equal(encode(Conditioner(model, TOKENIZER), *weighted, emphasis="Ignore").joined(), plain.joined())


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_negative_prompt_is_zeros_for_sdxl_only(text: str) -> None:
    conditioner = Conditioner(loaded("sdxl"), TOKENIZER)
    zeros = encode(conditioner, (text, 1.0), is_negative=True)
    assert zeros.joined().abs().max() == 0
    assert zeros.pooled is not None
    assert zeros.pooled.abs().max() == 0
    assert encode(conditioner, (text, 1.0), is_negative=False).joined().abs().max() > 0
    assert encode(conditioner, ("blurry", 1.0), is_negative=True).joined().abs().max() > 0
    assert encode(Conditioner(loaded("sd1"), TOKENIZER), (text, 1.0), is_negative=True).joined().abs().max() > 0


def test_the_size_of_the_pass_reaches_sdxl() -> None:
    conditioner = Conditioner(loaded("sdxl"), TOKENIZER)
    condition = conditioner.condition(encode(conditioner, ("fox", 1.0)), 96, 64)
    assert condition.added is not None
    assert condition.added["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]


def test_a_prompt_is_encoded_once_for_each_thing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*arguments: Any) -> TextStates:
        calls.append(1)
        return encode_tokens(*arguments)

    monkeypatch.setattr(conditioning, "encode_tokens", counted)
    conditioner = Conditioner(loaded("sd1"), TOKENIZER)
    variants: list[dict[str, Any]] = [{}, {"clip_skip": 2}, {"emphasis": "No norm"}, {"weights": ("x", 0.5)}]
    for _ in range(2):
        for changes in variants:
            encode(conditioner, ("fox", 1.2), **changes)
    assert len(calls) == len(variants)
    encode(conditioner, ("fox", 1.3))
    assert len(calls) == len(variants) + 1


def test_the_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    conditioner = Conditioner(loaded("sd1"), TOKENIZER)
    first = encode(conditioner, ("first", 1.0))
    for number in range(CACHED_PROMPTS - 1):
        encode(conditioner, (str(number), 1.0))
    assert encode(conditioner, ("first", 1.0)) is first
    encode(conditioner, ("one more", 1.0))
    assert encode(conditioner, ("first", 1.0)) is first
    for number in range(CACHED_PROMPTS):
        encode(conditioner, (f"other {number}", 1.0))
    assert encode(conditioner, ("first", 1.0)) is not first
