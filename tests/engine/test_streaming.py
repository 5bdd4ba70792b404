"""A U-Net whose blocks come when they are called, on a stand-in for a card."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from studio.engine.streaming import StreamedUNet, blocks
from tests.engine.card import Card, card_of
from tests.tiny_models import tiny_components


@pytest.fixture
def card() -> Iterator[Card]:
    with card_of(2**30) as hardware:
        assert hardware.card is not None
        yield hardware.card


def call(unet: Any, device: Any = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 16, 16, generator=generator).to(device)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator).to(device)
    with torch.inference_mode():
        out: torch.Tensor = unet(x, 500, states, return_dict=False)[0]
    return out.cpu()


def test_it_says_the_same_and_all_of_it_waits_outside_again(card: Card) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    wanted = call(unet)
    outside = [weight.data_ptr() for weight in unet.parameters()]
    streamed = StreamedUNet(unet, torch.device("xpu"))
    for _ in range(2):
        streamed.come()
        assert torch.equal(call(unet, "xpu"), wanted)
        streamed.leave()
        assert [weight.data_ptr() for weight in unet.parameters()] == outside, "nothing was copied back"
        assert not any(card.holds(weight) for weight in unet.parameters())
    assert card.used == 0
    assert not any(weight.is_inference() for weight in unet.parameters()), "a LoRA can be merged into them"
    assert torch.equal(call(unet), wanted)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_only_the_block_that_works_is_there(card: Card) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    found = blocks(unet)
    there: list[list[int]] = []

    def look(*_: Any) -> None:
        there.append([i for i, block in enumerate(found) if card.holds(next(block.parameters()))])

    streamed = StreamedUNet(unet, torch.device("xpu"))
    streamed.come()
    for block in found:
        block.register_forward_pre_hook(look)
    rest = card.used
    call(unet, "xpu")
    assert sorted(there) == [[i] for i in range(len(found))]
    assert 0 < rest < 0.2 * sum(weight.nbytes for weight in unet.parameters())
    assert card.used == rest


def test_a_block_leaves_when_its_call_or_its_coming_fails(card: Card) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    first = blocks(unet)[0]

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    streamed = StreamedUNet(unet, torch.device("xpu"))
    streamed.come()
    hook = list(first.children())[-1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no"):
        call(unet, "xpu")
    assert not any(card.holds(weight) for weight in first.parameters())
    hook.remove()
    card.capacity = card.used + sum(weight.nbytes for weight in first.parameters()) // 2
    with pytest.raises(torch.OutOfMemoryError):
        call(unet, "xpu")
    streamed.leave()
    assert not any(card.holds(weight) for weight in unet.parameters())
