"""Each lever that is always on can be taken away by its name: it then does nothing, and the picture stays what it was, but for rounding."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from studio.engine import hardware
from studio.engine.hardware import DeviceName, PrecisionName, choose_hardware
from studio.engine.packing import PackedConv2d
from studio.engine.runner import DiffusersEngine
from studio.engine.worker_client import WorkerEngine
from studio.schema.engine import CancelToken
from studio.schema.levers import LEVERS, ROUNDED_BY, LeverName
from studio.schema.resolved import LoraUse
from tests.engine.samples import resolved_request
from tests.engine.test_hardware import pretend_cuda
from tests.engine.test_runner import ACCEPTED, distance, images_of, pictures
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


# Huge pages are a matter of a process, decoding beside one of cards: here there would be nothing to take away.
@pytest.mark.parametrize("name", [name for name in LEVERS if name not in ("huge-pages", "decoding-beside")])
def test_the_picture_stays_but_for_rounding_and_says_so(
    name: LeverName, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.packing.PACKED_FROM", 1)
    (picture,) = images_of(DiffusersEngine("cpu", precision="fp32", without=OFF[name]), tiny_info("sd1"))
    assert distance(picture, whole) <= (ACCEPTED if name in ROUNDED_BY else 0)
    acts = name == "one-pass" or (name == "packing" and choose_hardware("cpu", precision="fp32").packs)
    assert (f"without {name}" in picture.infotext) is acts


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
    """How often weights are computed for LoRAs that were used before: two in turn, then none, then one."""
    engine = DiffusersEngine("cpu", precision="fp32", without=OFF[name] if name else frozenset())
    stack = type(engine.load(tiny_info("sd1")).loras)
    merge, calls = stack._merge, list[None]()
    monkeypatch.setattr(stack, "_merge", lambda self, plan: (calls.extend([None] * bool(plan)), merge(self, plan))[1])
    for seed in (1, 2, 1, 2, None, 2):
        lora = tiny_info(tiny_lora("sd1", seed=seed), "lora") if seed else None
        use = (LoraUse(name="l", model=lora, te_weight=1.0, unet_weight=1.0),) if lora else ()
        images_of(engine, tiny_info("sd1"), loras=use)
    monkeypatch.setattr(stack, "_merge", merge)
    return len(calls)


def test_merged_weights_are_kept_unless_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_merged(None, monkeypatch) == 2
    assert times_merged("kept-merges", monkeypatch) == 5


def test_a_worker_is_told_what_to_leave_out() -> None:
    """All the way from the setting to the text of the picture."""
    with contextlib.closing(WorkerEngine("cpu", precision="fp32", without="kept-keys,one-pass")) as engine:
        (picture,) = pictures(list(engine.run(resolved_request(tiny_info("sd1"), steps=1), CancelToken())))
    assert 'sdpa, without one-pass"' in picture.infotext


@pytest.mark.parametrize(
    "precision, device, said",
    [
        ("fp32", "cpu", {"one-pass", "packing"}),
        (
            "bf16",
            "cpu",
            {"one-pass", "channels-last", "packing"},
        ),  # which is the same to the bit only with channels last
        ("bf16", "cuda", {"one-pass", "channels-last"}),
    ],
)
def test_only_what_acts_is_named(
    precision: PrecisionName, device: DeviceName, said: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda":
        pretend_cuda(monkeypatch)
    monkeypatch.setattr(hardware, "_packs", lambda device, dtype: device.type == "cpu")
    words = choose_hardware(device, precision=precision, without=frozenset(LEVERS)).backend.split(", ")
    assert {word.removeprefix("without ") for word in words if word.startswith("without ")} == said
    alone = choose_hardware(device, precision=precision, without=frozenset(["packing"])).backend
    assert ("without packing" in alone) is (precision == "fp32")
