"""Packed convolutions: the same pictures as with ordinary weights, whatever is done to the model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from studio.engine import packing
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedModel, in_order, load_checkpoint
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.packing import PackedConv2d, expect_packed, unpacked
from studio.engine.wrapping import set_wrapping
from studio.errors import DamagedFile
from tests.tiny_models import original_state, tiny_file, tiny_folder, tiny_info

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not choose_hardware("cpu", precision="fp32").packs, reason="no oneDNN of the x86 kind")
SHORT = pytest.mark.skipif(choose_hardware("cpu").dtype != torch.bfloat16, reason="no instructions for bfloat16")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of the tests have no large weights."""
    monkeypatch.setattr(packing, "PACKED_FROM", 1)


def load(family: str, packs: bool, dtype: torch.dtype = torch.float32) -> LoadedModel:
    layout = in_order if dtype == torch.float32 else lambda _: torch.channels_last
    return load_checkpoint(tiny_info(tiny_folder(family)), CPU, dtype, layout=layout, packs=packs)


def packed_layers(model: LoadedModel) -> dict[str, PackedConv2d]:
    return {name: layer for name, layer in model.unet.named_modules() if isinstance(layer, PackedConv2d)}


def output(model: LoadedModel, size: Sequence[int] = (8, 8), batch: int = 2) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(0)
    unet: Any = model.unet
    x, text = (
        torch.randn(batch, 4, *size, generator=seeded).to(unet.dtype),
        torch.randn(batch, 7, unet.config.cross_attention_dim, generator=seeded).to(unet.dtype),
    )
    with torch.inference_mode():
        found: torch.Tensor = unet(x, 500, text).sample
    return found


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal but for rounding in float32, which the benchmarks bound alike."""
    return float((found - expected).norm()) <= 1e-4 * float(expected.norm())


def test_convolutions_of_the_unet_are_packed_and_no_others() -> None:
    model = load("sd1", packs=True)
    convolutions = {name: layer for name, layer in model.unet.named_modules() if isinstance(layer, nn.Conv2d)}
    packed = packed_layers(model)
    assert set(packed) == {name for name, layer in convolutions.items() if layer.kernel_size == (3, 3)}
    assert packed and all(layer.weight.is_mkldnn for layer in packed.values())
    assert not any(isinstance(layer, PackedConv2d) for layer in model.vae.modules())
    plain = load("sd1", packs=False)
    assert not packed_layers(plain)  # what training gets
    for name, layer in packed.items():
        assert torch.equal(unpacked(layer.weight), plain.unet.get_submodule(name).weight)
    sizes = [sum(weight.nbytes for weight in each.unet.parameters()) for each in (model, plain)]
    assert sizes[0] == sizes[1]


def test_small_weights_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(64, 64, 1))
    monkeypatch.setattr(packing, "PACKED_FROM", 16 * 16 * 9)
    assert set(expect_packed(layers, torch.contiguous_format)) == {"1.weight"}


@pytest.mark.parametrize("size", [(16, 16), (16, 8), (12, 20)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("wraps", [False, True])
def test_a_pass_is_the_same_in_float32_but_for_rounding(size: Sequence[int], batch: int, wraps: bool) -> None:
    pair = [load("sd1", packs) for packs in (True, False)]
    for model in pair:
        set_wrapping(model.unet, wraps)
    found, expected = (output(model, size, batch) for model in pair)
    assert found.shape == expected.shape
    assert near(found, expected)
    assert found.stride() == expected.stride()
    set_wrapping(pair[0].unet, not wraps)
    assert not near(output(pair[0], size, batch), expected)


@SHORT
@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_a_pass_is_the_same_in_bfloat16_to_the_bit(size: Sequence[int]) -> None:
    found, expected = (output(load("sd1", packs, torch.bfloat16), size) for packs in (True, False))
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_strides_paddings_and_weights_without_bias() -> None:
    for stride, padding, bias in [(1, 1, True), (2, 1, False), (2, 0, True), (1, 2, True)]:
        layer = nn.Conv2d(24, 40, 3, stride, padding, bias=bias).requires_grad_(False)
        x = torch.randn(2, 24, 9, 11)
        expected, weight = copy.deepcopy(layer).double()(x.double()).float(), layer.weight.data
        (packed,) = expect_packed(nn.Sequential(layer), torch.contiguous_format).values()
        packed.weight = nn.Parameter(packed.packed(weight), requires_grad=False)
        found = layer(x)
        assert found.shape == expected.shape
        assert near(found, expected)


def lora_for(tmp_path: Path, layer: nn.Conv2d, name: str, dora: bool) -> list[LoraWeights]:
    seeded = torch.Generator().manual_seed(1)
    key, rank = "lora_unet_" + name.replace(".", "_"), 4
    tensors = {
        f"{key}.lora_up.weight": torch.randn(layer.out_channels, rank, 1, 1, generator=seeded),
        f"{key}.lora_down.weight": torch.randn(rank, layer.in_channels, 3, 3, generator=seeded),
        f"{key}.alpha": torch.tensor(2.0),
    }
    if dora:
        tensors[f"{key}.dora_scale"] = torch.rand(layer.out_channels, 1, 1, 1, generator=seeded) + 0.5
    path = tmp_path / "convolution.safetensors"
    save_file(tensors, path)
    return [LoraWeights(path, 1.0, 0.7)]


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_on_a_packed_convolution(tmp_path: Path, dora: bool) -> None:
    name = "down_blocks.0.resnets.0.conv1"
    model, plain = (load("sd1", packs) for packs in (True, False))
    layer, ordinary = (each.unet.get_submodule(name) for each in (model, plain))
    wanted = lora_for(tmp_path, ordinary, name, dora)
    before, parameter = unpacked(layer.weight).clone(), layer.weight
    stack, other = LoraStack(model), LoraStack(plain)
    for _ in range(2):  # merged anew, then shown again
        assert stack.apply(wanted)
        assert other.apply(wanted)
        assert layer.weight is parameter
        assert parameter.is_mkldnn
        assert torch.equal(unpacked(layer.weight), ordinary.weight)
        assert not torch.equal(unpacked(layer.weight), before)
        assert near(output(model), output(plain))
        stack.apply([])
        other.apply([])
        assert torch.equal(unpacked(layer.weight), before)


def test_a_bad_number_in_a_packed_weight_is_damage(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in original_state("sd1").items()}
    key = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    state[key].view(-1)[7] = float("nan")
    path = tmp_path / "bad.safetensors"
    save_file(state, path)
    with pytest.raises(DamagedFile, match=r"resnets\.0\.conv1\.weight holds values"):
        load_checkpoint(tiny_info(path), CPU, torch.float32, packs=True)
    assert packed_layers(load_checkpoint(tiny_info(tiny_file("sd1")), CPU, torch.float32, packs=True))


def test_the_keeper_packs_where_the_hardware_says_so() -> None:
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"))
    loaded = keeper.checkpoint(tiny_info(tiny_folder("sd1")))
    assert packed_layers(loaded.model)
    assert loaded.bytes > 0
    keeper.drop()


def test_a_packed_convolution_refuses_to_train() -> None:
    layer = packed_layers(load("sd1", packs=True))["down_blocks.0.resnets.0.conv1"]
    x = torch.randn(1, layer.in_channels, 8, 8)
    assert layer(x).shape == (1, layer.out_channels, 8, 8)
    with pytest.raises(RuntimeError, match="no gradient"):
        layer(x.requires_grad_())
