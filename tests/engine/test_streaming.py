"""A U-Net whose blocks come when they are called. No second device is here: copies stand for what lies on it."""

from __future__ import annotations

import copy
import operator
from typing import Any

import pytest
import torch

from studio.engine import saving as saving_module
from studio.engine import streaming
from studio.engine.hardware import Hardware, choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.errors import OutOfMemory
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Status
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_components, tiny_info

CARD = torch.device("cuda")


class Device:
    """Stands for a card: what is moved there is a copy, and is counted until it is let go."""

    def __init__(self) -> None:
        self.moves: list[str] = []

    def moved(self, weight: torch.Tensor, device: torch.device) -> torch.Tensor:
        self.moves.append(device.type)
        return weight.clone()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    card = Device()
    monkeypatch.setattr(streaming, "_moved", card.moved)
    return card


def call(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    with torch.inference_mode():
        out: torch.Tensor = unet(x, 500, states, return_dict=False)[0]
    return out


def test_it_says_the_same_and_all_blocks_are_there_again(device: Device) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    wanted = call(unet)
    weights = [weight.data_ptr() for block in streaming.blocks(unet) for weight in block.parameters()]
    with streaming.streamed(unet, CARD):
        outside = [weight.data_ptr() for block in streaming.blocks(unet) for weight in block.parameters()]
        assert torch.equal(call(unet), wanted)
        assert outside == [weight.data_ptr() for block in streaming.blocks(unet) for weight in block.parameters()]
        assert not any(map(operator.eq, outside, weights)), "none is left where it was"
    again = [weight.data_ptr() for block in streaming.blocks(unet) for weight in block.parameters()]
    assert not any(map(operator.eq, outside, again))
    count = len(outside)
    assert device.moves == ["cpu"] * count + ["cuda"] * 2 * count, "out, in for the call, in to stay"
    assert not any(weight.is_inference() for weight in unet.parameters()), "a LoRA can be merged into them"
    assert torch.equal(call(unet), wanted)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_only_the_block_that_works_is_there(device: Device) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    found = streaming.blocks(unet)
    there: list[list[int]] = []
    with streaming.streamed(unet, CARD):
        outside = {id(block): next(block.parameters()).data_ptr() for block in found}

        def look(*_: Any) -> None:
            there.append(
                [i for i, block in enumerate(found) if next(block.parameters()).data_ptr() != outside[id(block)]]
            )

        hooks = [block.register_forward_pre_hook(look) for block in found]
        call(unet)
        for hook in hooks:
            hook.remove()
    assert sorted(there) == [[i] for i in range(len(found))]
    inside = {id(weight) for block in found for weight in block.parameters()}
    rest = sum(weight.numel() for weight in unet.parameters() if id(weight) not in inside)
    assert rest < 0.2 * sum(weight.numel() for weight in unet.parameters())


def test_a_block_leaves_when_its_call_fails(device: Device) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    first = streaming.blocks(unet)[0]
    last = list(first.children())[-1]

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with streaming.streamed(unet, CARD):
        outside = [weight.data_ptr() for weight in first.parameters()]
        hook = last.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="no"):
            call(unet)
        assert [weight.data_ptr() for weight in first.parameters()] == outside
        hook.remove()


def test_it_is_the_last_thing_a_job_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    saving = Saving()
    assert [bool(saving.more(CARD)) for _ in range(4)] == [True, True, True, False]
    assert saving.split and saving.parked and saving.streamed
    assert saving.more(torch.device("cpu")) == ""
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"))
    loaded = keeper.checkpoint(tiny_info("sd1"))
    asked: list[str] = []
    monkeypatch.setattr(saving_module, "_move", lambda modules, device, hardware: asked.append(device.type))
    monkeypatch.setattr(streaming, "_moved", lambda weight, device: weight)
    card = Hardware(torch.device("meta"), torch.float16, torch.float32, "sdpa")
    for needed, hooked in (("unet", True), ("vae", False)):
        with saving.only(needed, loaded, card):
            block = streaming.blocks(loaded.model.unet)[0]
            assert bool(block._forward_pre_hooks) is hooked
    assert asked == ["cpu", "meta"] * 2
    keeper.drop()


def test_a_job_is_painted_with_it_bit_for_bit(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Memory runs out for as long as the U-Net is there as a whole; the processor is taken for a card."""
    engine = DiffusersEngine("cpu", precision="fp32")
    request = resolved_request(tiny_info("sd1"), cfg_scale=1.0)
    (whole,) = [event for event in engine.run(request, CancelToken()) if isinstance(event, ImageReady)]
    unet, more = engine.load(tiny_info("sd1")).model.unet, Saving.more
    monkeypatch.setattr(Saving, "more", lambda self, device: more(self, CARD))
    monkeypatch.setattr(Saving, "decodes_in_tiles", lambda self, *_: False)
    block = streaming.blocks(unet)[0]

    def refuse(*_: Any) -> None:
        if len(block._forward_pre_hooks) < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = unet.register_forward_pre_hook(refuse)
    events = list(engine.run(request, CancelToken()))
    (picture,) = [event for event in events if isinstance(event, ImageReady)]
    assert picture.png == whole.png
    assert [event.message for event in events if isinstance(event, Status) and "block by block" in event.message]
    hook.remove()
    hook = unet.register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(OutOfMemory):
        list(engine.run(request, CancelToken()))
    hook.remove()
    (again,) = [event for event in engine.run(request, CancelToken()) if isinstance(event, ImageReady)]
    assert again.png == whole.png
    engine.close()
