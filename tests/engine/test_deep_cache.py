"""DeepCache: exact where nothing changed, whole calls when they are due, and far less work between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.engine.deep_cache import DeepCacheUNet
from studio.engine.denoise import Condition, GuidedUNet, Timeline
from tests.tiny_models import tiny_components

FAMILIES = ["sd1", "sd2", "sdxl", "sdxl_refiner", "sprout"]


def inputs(family: str, seed: int = 1, rows: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
    config = tiny_components(family)["unet"].config
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, config.in_channels, 16, 24, generator=generator)
    states = torch.randn(rows, 77, config.cross_attention_dim, generator=generator)
    ids = {"sdxl": 6, "sdxl_refiner": 5}.get(family)
    added = {"text_embeds": torch.ones(rows, 64), "time_ids": torch.ones(rows, ids)} if ids else None
    return x, states, added


def call(unet: Any, x: Tensor, time: float, states: Tensor, added: dict[str, Tensor] | None) -> Tensor:
    with torch.inference_mode():
        out: Tensor = unet(x, torch.full((len(x),), time), states, added_cond_kwargs=added, return_dict=False)[0]
        return out


def deep_calls(family: str) -> tuple[list[int], Callable[[], None]]:
    """A list that grows at every call of the middle block, and how to stop that."""
    seen: list[int] = []
    hook = tiny_components(family)["unet"].mid_block.register_forward_hook(lambda *_: seen.append(1))
    return seen, hook.remove


@pytest.mark.parametrize("family", FAMILIES)
def test_the_outer_blocks_alone_give_the_same_where_nothing_changed(family: str) -> None:
    unet = tiny_components(family)["unet"]
    x, states, added = inputs(family)
    cached = DeepCacheUNet(unet, 2)
    expected = call(unet, x, 700, states, added)
    seen, stop = deep_calls(family)
    whole, shallow = (call(cached, x, 700, states, added) for _ in range(2))
    stop()
    assert len(seen) == 1
    assert torch.equal(whole, expected)
    assert torch.equal(shallow, expected)


@pytest.mark.parametrize("interval, expected", [(1, 7), (2, 4), (3, 3), (7, 1)])
def test_every_nth_call_is_whole(interval: int, expected: int) -> None:
    cached = DeepCacheUNet(tiny_components("sd1")["unet"], interval)
    x, states, added = inputs("sd1")
    seen, stop = deep_calls("sd1")
    for step in range(7):
        call(cached, x, 900 - 100 * step, states, added)
    stop()
    assert len(seen) == expected


def test_the_outer_blocks_follow_the_new_latents_and_time() -> None:
    cached = DeepCacheUNet(tiny_components("sd1")["unet"], 3)
    x, states, added = inputs("sd1")
    first = call(cached, x, 700, states, added)
    other_time = call(cached, x, 300, states, added)
    other_x = call(cached, inputs("sd1", 2)[0], 300, states, added)
    assert not torch.equal(first, other_time)
    assert not torch.equal(other_time, other_x)


def test_another_prompt_has_features_of_its_own() -> None:
    unet = tiny_components("sd1")["unet"]
    cached = DeepCacheUNet(unet, 4)
    (x, one, _), (_, two, _) = inputs("sd1"), inputs("sd1", 2)
    seen, stop = deep_calls("sd1")
    pairs = [(call(cached, x, 500, states, None), call(unet, x, 500, states, None)) for states in (one, two, one, two)]
    stop()
    assert all(torch.equal(found, expected) for found, expected in pairs)
    assert len(seen) == 2 + 4


def test_prompts_of_unequal_length_are_one_model_call() -> None:
    """They go through the U-Net one after the other; both keep their features until the next whole call."""
    unet = tiny_components("sd1")["unet"]
    x, states, _ = inputs("sd1", rows=1)
    long, short = (Timeline(((99, Condition(part)),)) for part in (torch.cat((states, states), dim=1), states))
    guided = GuidedUNet(DeepCacheUNet(unet, 2), lambda sigma: 100 * sigma, "epsilon", [long], short, 3.0, torch.float32)
    seen, stop = deep_calls("sd1")
    with torch.inference_mode():
        for sigma in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0):
            guided(x, sigma)
    stop()
    assert len(seen) == 2 * 3
