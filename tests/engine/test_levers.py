"""Each lever that is always on can be taken away by its name: it then does nothing, and the picture stays what it was, but for rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.engine import hardware
from studio.engine.hardware import choose_hardware
from studio.engine.packing import PackedConv2d
from studio.engine.runner import DiffusersEngine
from studio.schema.levers import LEVERS, ROUNDED_BY, LeverName
from studio.schema.resolved import LoraUse
from tests.engine.test_hardware import pretend_cuda
from tests.engine.test_runner import ACCEPTED, distance, images_of
from tests.tiny_models import tiny_info, tiny_lora

OFF: dict[LeverName, frozenset[LeverName]] = {name: frozenset([name]) for name in LEVERS}


@pytest.fixture(scope="module")
def whole() -> Any:
    """The picture with everything on, of a model whose convolutions are all packed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studio.engine.packing.PACKED_FROM", 1)
        engine = DiffusersEngine("cpu", precision="fp32")
        (picture,) = images_of(engine, tiny_info("sd1"))
    return picture


@pytest.mark.parametrize("name", LEVERS)
def test_the_picture_stays_but_for_rounding_and_says_so(
    name: LeverName, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.packing.PACKED_FROM", 1)
    (picture,) = images_of(DiffusersEngine("cpu", precision="fp32", without=OFF[name]), tiny_info("sd1"))
    assert distance(picture, whole) <= (ACCEPTED if name in ROUNDED_BY else 0)
    assert (f"without {name}" in picture.infotext) is (name in ROUNDED_BY)


def calls_of_the_unet(name: LeverName | None) -> list[int]:
    """The rows of every U-Net call, and how often the first cross-attention made keys."""
    engine = DiffusersEngine("cpu", precision="fp32", without=OFF[name] if name else frozenset())
    unet = engine.load(tiny_info("sd1")).model.unet
    rows, made = list[int](), list[None]()
    cross = next(module for path, module in unet.named_modules() if path.endswith("attn2.to_k"))
    handles = [
        unet.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))),
        cross.register_forward_hook(lambda *_: made.append(None)),
    ]
    images_of(engine, tiny_info("sd1"), steps=3)
    for handle in handles:
        handle.remove()
    return [*rows, len(made)]


def test_prompts_go_together_and_keys_are_kept_unless_left_out() -> None:
    assert calls_of_the_unet(None) == [2, 2, 2, 1]
    assert calls_of_the_unet("one-pass") == [1] * 6 + [2]
    assert calls_of_the_unet("kept-keys") == [2, 2, 2, 3]


def test_weights_lie_as_they_are_read_unless_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if not choose_hardware("cpu", precision="fp32").packs:
        pytest.skip("no oneDNN of the x86 kind")
    monkeypatch.setattr("studio.engine.packing.PACKED_FROM", 1)

    def packed(without: frozenset[LeverName]) -> bool:
        unet = DiffusersEngine("cpu", precision="fp32", without=without).load(tiny_info("sd1")).model.unet
        return any(isinstance(layer, PackedConv2d) for layer in unet.modules())

    assert packed(frozenset()) and not packed(OFF["packing"])


def test_channels_and_streams_are_left_as_they_are_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, last = torch.contiguous_format, torch.channels_last
    found = [choose_hardware("cpu", without=off).layout(torch.bfloat16) for off in (frozenset(), OFF["channels-last"])]
    assert found == [last, plain]
    pretend_cuda(monkeypatch)
    assert [hardware.choose_hardware("cuda", without=off).overlaps for off in (frozenset(), OFF["decoding-beside"])] == [True, False]  # fmt: skip


def times_read(name: LeverName | None) -> int:
    """How often the text encoder works for three pictures of the same prompts."""
    engine = DiffusersEngine("cpu", precision="fp32", without=OFF[name] if name else frozenset())
    calls: list[None] = []
    handle = engine.load(tiny_info("sd1")).model.text_encoders[0].register_forward_hook(lambda *_: calls.append(None))
    for seed in (1, 2, 3):
        images_of(engine, tiny_info("sd1"), seed=seed)
    handle.remove()
    return len(calls)


def test_prompts_are_read_once_unless_left_out() -> None:
    assert (times_read(None), times_read("prompt-cache")) == (2, 6)


def times_merged(name: LeverName | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often weights are computed while two LoRAs are used in turn, twice."""
    engine = DiffusersEngine("cpu", precision="fp32", without=OFF[name] if name else frozenset())
    stack = type(engine.load(tiny_info("sd1")).loras)
    merge, calls = stack._merge, list[None]()
    monkeypatch.setattr(stack, "_merge", lambda self, plan: (calls.append(None), merge(self, plan))[1])
    for seed in (1, 2, 1, 2):
        lora = tiny_info(tiny_lora("sd1", seed=seed), "lora")
        images_of(engine, tiny_info("sd1"), loras=(LoraUse(name="l", model=lora, te_weight=1.0, unet_weight=1.0),))
    monkeypatch.setattr(stack, "_merge", merge)
    return len(calls)


def test_merged_weights_are_kept_unless_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_merged(None, monkeypatch) == 2
    assert times_merged("kept-merges", monkeypatch) == 4
