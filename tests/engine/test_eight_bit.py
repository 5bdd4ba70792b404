"""Weights in eight bits: the rounded network's outputs to the last bit, half the memory, LoRAs merged and taken out exactly."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from studio.engine.eight_bit import PLAIN, EightBitConv2d, EightBitLinear, Storage, half_bytes, rounded
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.loading_copies import Copies
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.runner import DiffusersEngine
from studio.engine.text_encoders import encode_tokens
from studio.engine.wrapping import set_wrapping
from studio.errors import InvalidRequest
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.resolved import RefinerPlan, ResolvedRequest
from tests.engine.samples import resolved_request
from tests.tiny_models import read_tensors, tiny_components, tiny_file, tiny_folder, tiny_info, tiny_lora

CPU = torch.device("cpu")
EIGHT, CACHED = Storage(eight_bit=True), Storage(eight_bit=True, halves=True)
TOKENS = torch.tensor([[49406, 320, 736, 3240, *([49407] * 73)]])
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def load(family: str, storage: Storage = EIGHT, dtype: torch.dtype = torch.float32, **more: Any) -> LoadedModel:
    return load_checkpoint(tiny_info(tiny_folder(family)), CPU, dtype, storage=storage, **more)


def by_hand(module: nn.Module) -> nn.Module:
    """The network in plain torch, its weights as they come out of float8."""
    network = copy.deepcopy(module)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for weight in (layer.weight, layer.bias):
                if weight is not None:
                    weight.data = weight.data.to(torch.float8_e4m3fn).to(torch.float32)
    return network


def output(unet: Any, model: LoadedModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(1, unet.config.in_channels, 8, 8, generator=seeded).to(dtype)
    text = torch.randn(1, 7, unet.config.cross_attention_dim, generator=seeded).to(dtype)
    added = model.added_conditions(torch.ones(1, 64), 64, 64)
    with torch.inference_mode():
        found: torch.Tensor = unet(x, 500, text, added_cond_kwargs=added).sample
    return found


@pytest.mark.parametrize(("make", "family"), [(tiny_folder, "sd1"), (tiny_file, "sdxl")])
def test_a_network_paints_what_its_rounded_weights_paint(family: str, make: Any) -> None:
    model = load_checkpoint(tiny_info(make(family)), CPU, torch.float32, storage=EIGHT)
    plain = load(family, PLAIN)
    parts = tiny_components(family)
    found = output(model.unet, model)
    assert torch.equal(found, output(by_hand(parts["unet"]), model))
    assert not torch.equal(found, output(plain.unet, plain))
    states = encode_tokens(model, TOKENS).joined()
    plain.text_encoders = tuple(by_hand(parts[encoder.name]) for encoder in model.family.encoders)
    assert torch.equal(states, encode_tokens(plain, TOKENS).joined())


def test_weights_take_one_byte_and_norms_tables_and_vae_are_as_ever() -> None:
    model, plain = load("sd1"), load("sd1", PLAIN)
    layers = 0
    for name, module in (("unet", model.unet), ("text", model.text_encoders[0]), ("vae", model.vae)):
        for layer in module.modules():
            wanted = torch.float32
            if isinstance(layer, nn.Linear | nn.Conv2d) and name != "vae":
                wanted, layers = torch.float8_e4m3fn, layers + 1
                assert isinstance(layer, EightBitLinear | EightBitConv2d)
            assert all(weight.dtype == wanted for weight in layer.parameters(recurse=False))
    assert layers > 100
    rest = sum(
        weight.nbytes
        for layer in plain.unet.modules()
        if not isinstance(layer, nn.Linear | nn.Conv2d)
        for weight in layer.parameters(recurse=False)
    )
    before, now = (sum(weight.nbytes for weight in each.unet.parameters()) for each in (plain, model))
    assert now == (before - rest) // 4 + rest  # a quarter of float32, half of 16 bits
    assert half_bytes(model.unet) == 0


def test_weights_are_rounded_once_from_what_the_file_holds() -> None:
    """By way of bfloat16 some would end one step further."""
    short, exact = load("sd1", dtype=torch.bfloat16, layout=lambda _: torch.channels_last), load("sd1")
    for (name, one), other in zip(short.unet.named_parameters(), exact.unet.parameters(), strict=True):
        if one.dtype == torch.float8_e4m3fn:
            assert torch.equal(one.float(), other.float()), name
    assert short.unet.get_parameter("conv_in.weight").is_contiguous(memory_format=torch.channels_last)
    oracle = by_hand(tiny_components("sd1")["unet"]).to(torch.bfloat16, memory_format=torch.channels_last)
    found = output(short.unet, short, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, output(oracle, short, torch.bfloat16))


def test_what_is_too_large_becomes_the_largest_there_is() -> None:
    found = rounded(torch.tensor([1e6, -449.0, 448.0, 0.3]))
    assert found.float().tolist() == [448.0, -448.0, 448.0, 0.3125]


def test_edges_that_meet_go_on_meeting() -> None:
    model, oracle = load("sd1"), by_hand(tiny_components("sd1")["unet"])
    plain = output(model.unet, model)
    set_wrapping(model.unet, True)
    set_wrapping(oracle, True)
    assert torch.equal(output(model.unet, model), output(oracle, model))
    assert not torch.equal(output(model.unet, model), plain)


@pytest.mark.parametrize("storage", [EIGHT, CACHED])
def test_a_lora_is_merged_and_taken_out(storage: Storage) -> None:
    model, plain = load("sd1", storage), load("sd1", PLAIN)
    before = {name: weight.clone() for name, weight in model.unet.named_parameters()}
    first, second = tiny_lora("sd1", seed=1), tiny_lora("sd1", seed=2)
    stack = LoraStack(model)
    stack.apply([LoraWeights(first, 0.8, 0.8), LoraWeights(second, -0.4, -0.4)])
    base = plain.unet.get_parameter(f"{LAYER}.weight")
    base = base.half().float() if storage.halves else base.to(torch.float8_e4m3fn).float()
    for path, strength in ((first, 0.8), (second, -0.4)):
        held = read_tensors(path)
        key = f"lora_unet_{LAYER.replace('.', '_')}"
        up, down = held[f"{key}.lora_up.weight"].float(), held[f"{key}.lora_down.weight"].float()
        base = base + strength * float(held[f"{key}.alpha"]) / down.shape[0] * (up @ down)
    merged = model.unet.get_parameter(f"{LAYER}.weight")
    assert torch.equal(merged.float(), base.to(torch.float8_e4m3fn).float())
    assert not torch.equal(merged.float(), before[f"{LAYER}.weight"].float())
    stack.apply([])
    for name, weight in model.unet.named_parameters():
        assert torch.equal(weight.float(), before[name].float()), name


def test_the_cache_holds_every_weight_before_it_is_rounded() -> None:
    """The weights as the file has them, in half precision."""
    model = load("sd1", CACHED)
    layer = model.unet.get_submodule(LAYER)
    assert torch.equal(layer.unrounded, load("sd1", PLAIN).unet.get_parameter(f"{LAYER}.weight").half())
    weights = sum(each.weight.numel() for each in model.unet.modules() if isinstance(each, nn.Linear | nn.Conv2d))
    assert half_bytes(model.unet) == 2 * weights


def test_no_copy_is_made_or_used(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copies", 2**30)
    load("sd1", EIGHT, copies=copies)
    assert not (tmp_path / "copies").exists()
    assert load("sd1", PLAIN, copies=copies).mapped
    mixed = load("sd1", EIGHT, copies=copies)
    assert not mixed.mapped
    assert torch.equal(output(mixed.unet, mixed), output(by_hand(tiny_components("sd1")["unet"]), mixed))


def test_each_way_to_store_a_checkpoint_is_one_of_its_own() -> None:
    keeper, info = ModelKeeper(choose_hardware("cpu", precision="fp32"), limit=4), tiny_info("sd1")
    plain = keeper.checkpoint(info)
    sizes = [plain.bytes]
    assert keeper.checkpoint(info) is plain
    for storage in (EIGHT, CACHED):
        assert not keeper.has(info, storage)
        loaded = keeper.checkpoint(info, storage=storage)
        assert loaded.storage == storage and keeper.has(info, storage) and keeper.held(info) is loaded
        sizes.append(loaded.bytes)
    assert not keeper.holds(plain)  # it gave its place
    assert sizes[1] < sizes[2] < sizes[0]


def test_room_is_made_for_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = choose_hardware("cpu", precision="fp32")
    monkeypatch.setattr("studio.engine.keeper.WORKING_MEMORY", 0)
    keeper = ModelKeeper(hardware, limit=4)
    info = tiny_info("sd1")
    model = ModelKeeper(hardware).checkpoint(info).model
    vae, *others = (
        sum(weight.numel() for weight in each.parameters()) for each in (model.vae, model.unet, *model.text_encoders)
    )
    rest = sum(others)
    for free, storages in (
        (4 * vae + rest - 1, ()),
        (4 * vae + rest, (EIGHT,)),
        (4 * vae + 3 * rest, (EIGHT, CACHED)),
        (4 * vae + 4 * rest, (EIGHT, CACHED, PLAIN)),
    ):
        monkeypatch.setattr(type(hardware), "free_memory", lambda self, free=free: free)
        assert tuple(s for s in (EIGHT, CACHED, PLAIN) if keeper.has_room(info, (), s)) == storages


def test_a_device_without_such_numbers_is_told_so() -> None:
    hardware = replace(choose_hardware("cpu", precision="fp32"), device=torch.device("mps"))
    with pytest.raises(InvalidRequest, match="Apple") as caught:
        ModelKeeper(hardware).checkpoint(tiny_info("sd1"), storage=EIGHT)
    assert caught.value.field == "fp8_weight"


def paint(engine: DiffusersEngine, resolved: ResolvedRequest) -> bytes:
    png = next(event.png for event in engine.run(resolved, CancelToken()) if isinstance(event, ImageReady))
    return Image.open(io.BytesIO(png)).tobytes()


def test_a_job_says_how_its_checkpoints_are_stored_and_the_next_one_is_as_before() -> None:
    engine = DiffusersEngine("cpu", precision="fp32")
    first, finisher = tiny_info("sd1"), tiny_info(tiny_file("sd1"))
    asked: dict[str, Any] = {"steps": 2, "preview_every": 0}
    asked |= {"refiner": RefinerPlan(model=finisher, switch_at=0.5, from_call=1)}
    before = paint(engine, resolved_request(first, **asked))
    changed = paint(engine, resolved_request(first, fp8_weight="Enable", **asked))
    assert {held.storage for held in engine._keeper._held} == {EIGHT}
    assert len(engine._keeper._held) == 2
    assert changed != before
    assert paint(engine, resolved_request(first, fp8_weight="Enable for SDXL", **asked)) == before
    assert {held.storage for held in engine._keeper._held} == {PLAIN}
    assert Storage.of(resolved_request(first, fp8_weight="Enable", cache_fp16_weight=True), first) == CACHED
    grand = tiny_info("sdxl_refiner")
    assert Storage.of(resolved_request(first, fp8_weight="Enable for SDXL", cache_fp16_weight=False), grand) == EIGHT
