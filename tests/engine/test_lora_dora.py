"""DoRAs: merged they do what peft's layers do, in every way that files write the lengths."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file

from studio.engine.loading import LoadedModel, load_checkpoint
from studio.engine.lora import LoraStack, LoraWeights
from studio.errors import DamagedFile
from tests.tiny_models import tiny_components, tiny_folder, tiny_info, tiny_lora

CPU = torch.device("cpu")
LINEAR, CONV = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"
SCALE = 2.0


def load() -> LoadedModel:
    return load_checkpoint(tiny_info(tiny_folder("sd1")), CPU, torch.float32)


def ask(unet: Any) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, 16, 16, generator=rng), torch.randn(1, 7, 32, generator=rng)
    with torch.no_grad():
        answer: torch.Tensor = unet(x, 500, text).sample
    return answer


def trained() -> tuple[Any, dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """peft's U-Net with DoRA on two layers, and their factors and magnitudes."""
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=[LINEAR, CONV], use_dora=True), unet)
    found = {}
    for index, name in enumerate((LINEAR, CONV)):
        layer, rng = unet.get_submodule(name), torch.Generator().manual_seed(index)
        down, up, length = (
            layer.lora_A["default"].weight,
            layer.lora_B["default"].weight,
            layer.lora_magnitude_vector["default"].weight,
        )
        up.data = torch.randn(up.shape, generator=rng) * 0.2
        length.data = length.data * (1 + 0.3 * torch.randn(length.shape, generator=rng))
        found[name] = tuple(each.detach().clone() for each in (down, up, length))
    return unet.eval(), found


def saved(path: Path, naming: str, layers: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for name, (down, up, length) in layers.items():
        if naming == "kohya":
            key = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(4.0)}
            tensors[f"{key}.dora_scale"] = length.reshape(-1, *([1] * (down.ndim - 1))).clone()
        else:
            key = f"unet.{name}"
            tensors |= {
                f"{key}.lora_A.weight": down,
                f"{key}.lora_B.weight": up,
                f"{key}.lora_magnitude_vector": length,
            }
    meta = (
        {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 4, "unet.use_dora": True})}
        if naming == "peft"
        else {}
    )
    save_file(tensors, path, meta)
    return path


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_merged_it_answers_as_pefts_layers_do(naming: str, tmp_path: Path) -> None:
    unet, layers = trained()
    model = load()
    before = ask(model.unet)
    stack = LoraStack(model)
    stack.apply([LoraWeights(saved(tmp_path / "d.safetensors", naming, layers), 1.0, 1.0)])
    assert not torch.allclose(before, ask(unet), atol=1e-3)
    assert torch.allclose(ask(model.unet), ask(unet), atol=1e-5)
    stack.apply([])
    assert torch.equal(ask(model.unet), before)


def test_the_lengths_of_columns_are_understood_too(tmp_path: Path) -> None:
    """LyCORIS by default: W' = m (W + d) / |W + d|, with one length for each input."""
    down, up = torch.randn(2, 64), torch.randn(64, 2) * 0.2
    length = torch.rand(1, 64) + 0.5
    key = f"lora_unet_{LINEAR.replace('.', '_')}"
    tensors = {
        f"{key}.lora_down.weight": down,
        f"{key}.lora_up.weight": up,
        f"{key}.alpha": torch.tensor(4.0),
        f"{key}.dora_scale": length,
    }
    save_file(tensors, tmp_path / "d.safetensors")
    model = load()
    weight = model.unet.get_submodule(LINEAR).weight
    changed = weight.detach().clone() + SCALE * up @ down
    wanted = changed * length / changed.norm(dim=0, keepdim=True)
    LoraStack(model).apply([LoraWeights(tmp_path / "d.safetensors", 1.0, 1.0)])
    assert torch.allclose(weight, wanted, atol=1e-5)


def test_half_strength_is_half_the_way_and_others_add_up(tmp_path: Path) -> None:
    _, layers = trained()
    path = saved(tmp_path / "d.safetensors", "kohya", layers)
    model = load()
    weight = model.unet.get_submodule(LINEAR).weight
    base = weight.detach().clone()
    stack = LoraStack(model)
    stack.apply([LoraWeights(path, 1.0, 1.0)])
    full = weight.detach().clone()
    stack.apply([LoraWeights(tiny_lora("sd1"), 1.0, 1.0)])
    other = weight.detach().clone()
    stack.apply([LoraWeights(tiny_lora("sd1"), 1.0, 1.0), LoraWeights(path, 1.0, 0.5)])
    assert torch.allclose(weight, other + (full - base) / 2, atol=1e-5)


def test_lengths_that_fit_nothing_or_are_missing_are_refused(tmp_path: Path) -> None:
    _, layers = trained()
    down, up, _ = layers[LINEAR]
    wrong = saved(tmp_path / "a.safetensors", "kohya", {LINEAR: (down, up, torch.ones(7))})
    with pytest.raises(DamagedFile, match=r"dora_scale is \[7, 1\]; \[64, 1\] or \[1, 64\] would fit"):
        LoraStack(load()).apply([LoraWeights(wrong, 1.0, 1.0)])
    tensors = {f"unet.{LINEAR}.lora_A.weight": down, f"unet.{LINEAR}.lora_B.weight": up}
    save_file(
        tensors, tmp_path / "b.safetensors", {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.use_dora": True})}
    )
    with pytest.raises(DamagedFile, match="no magnitudes for unet"):
        LoraStack(load()).apply([LoraWeights(tmp_path / "b.safetensors", 1.0, 1.0)])
