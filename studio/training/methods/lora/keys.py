"""A trained adapter as the tensors of a kohya (sd-scripts) LoRA file.

`lora_unet_<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha`, and `.dora_scale` of a DoRA: the lengths of rows, [out, 1] or [out, 1, 1, 1], as LyCORIS writes
them with `wd_on_output`. Layers are named as diffusers names them, with
underscores; those of SDXL's U-Net as the original code does. Text encoders are `lora_te_`, with SDXL `lora_te1_` and `lora_te2_`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from studio.families.layout import renamed, unet_names
from studio.families.lora_keys import LoraPart
from studio.schema.models import Family
from studio.training.checkpoint import Tensors
from studio.training.methods.lora.adapter import Trained


def layer_name(part: LoraPart, module: str, family: Family, unet_config: Mapping[str, Any]) -> str:
    """The name of a layer in the file, without the role."""
    if part == "unet":
        if family == "sdxl":
            module = renamed(f"{module}.weight", unet_names(unet_config)).removesuffix(".weight")
        return f"lora_unet_{module.replace('.', '_')}"
    number = "" if family != "sdxl" else "2" if part == "text_encoder_2" else "1"
    return f"lora_te{number}_text_model_{module.replace('.', '_')}"


def kohya_tensors(
    layers: Sequence[Trained], family: Family, unet_config: Mapping[str, Any], dtype: torch.dtype
) -> Tensors:
    """All tensors on the CPU, in `dtype`."""
    tensors: Tensors = {}
    for layer in layers:
        name = layer_name(layer.part, layer.module, family, unet_config)
        tensors[f"{name}.lora_down.weight"] = layer.down
        tensors[f"{name}.lora_up.weight"] = layer.up
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
        if layer.magnitude is not None:
            tensors[f"{name}.dora_scale"] = layer.magnitude.reshape(-1, *([1] * (layer.down.ndim - 1)))
    return {key: value.detach().to("cpu", dtype, copy=True).contiguous() for key, value in tensors.items()}
