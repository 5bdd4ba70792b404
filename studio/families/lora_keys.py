"""The key names of LoRA files, taken apart: which layer of which part of a model, and what role the tensor has.

Three namings are in use:

* kohya (sd-scripts, LyCORIS): `lora_unet_down_blocks_0_..._to_q.lora_down.weight`, text encoders `lora_te_`, `lora_te1_`,
  `lora_te2_`, strength in `.alpha`, lengths of a DoRA in `.dora_scale`; SDXL files name the U-Net's layers as the original code does (`input_blocks_4_1_...`).
* PEFT: `base_model.model.down_blocks....to_q.lora_A.weight`, alpha in the metadata or nowhere.
* diffusers: `unet.` / `text_encoder.` / `text_encoder_2.` in front, then PEFT's `lora_A` or older `lora.down`,
  `lora_linear_layer.down`, `processor.to_q_lora.down`; metadata key `lora_adapter_metadata`.

Layer names are compared with every dot turned into an underscore, the one form all three share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["down", "up", "mid", "alpha", "magnitude"]
LoraPart = Literal["unet", "text_encoder", "text_encoder_2"]
Naming = Literal["kohya", "peft", "diffusers", "unknown"]
Algorithm = Literal["lora", "locon", "dora", "loha", "lokr", "glora", "oft", "ia3", "full", "unknown"]


@dataclass(frozen=True)
class LoraKey:
    """One key understood: `layer` in underscore form, without the part's prefix and without `text_model_`."""

    part: LoraPart
    layer: str
    role: Role
    naming: Naming


_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (
        re.compile(
            r"\.lora_down\.weight$|\.lora_A(\.[^.]+)?\.weight$|\.lora(_linear_layer)?\.down\.weight$|_lora\.down\.weight$"
        ),
        "down",
    ),
    (
        re.compile(
            r"\.lora_up\.weight$|\.lora_B(\.[^.]+)?\.weight$|\.lora(_linear_layer)?\.up\.weight$|_lora\.up\.weight$"
        ),
        "up",
    ),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),
    (re.compile(r"(_lora)?\.alpha$"), "alpha"),
    (re.compile(r"\.dora_scale$|\.lora_magnitude_vector(\.[^.]+)?(\.weight)?$"), "magnitude"),
)
_ALGORITHMS: tuple[tuple[re.Pattern[str], Algorithm], ...] = (
    (re.compile(r"\.dora_scale$|\.lora_magnitude_vector(\.|$)"), "dora"),
    (re.compile(r"\.hada_(w[12]_[ab]|t[12])$"), "loha"),
    (re.compile(r"\.lokr_(w[12](_[ab])?|t[12])$"), "lokr"),
    (re.compile(r"\.[ab][12]\.weight$"), "glora"),
    (re.compile(r"\.oft_(blocks|diag)$"), "oft"),
    (re.compile(r"\.on_input$"), "ia3"),
    (re.compile(r"\.diff(_b)?$|\.[wb]_norm$"), "full"),
)
_KOHYA: dict[str, LoraPart] = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_DOTTED: dict[str, LoraPart] = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "diffusion_model.": "unet",
}
_BARE: dict[str, LoraPart] = {
    "down_blocks.": "unet",
    "mid_block.": "unet",
    "up_blocks.": "unet",
    "text_model.": "text_encoder",
    "encoder.layers.": "text_encoder",
}
# Older diffusers names of attention layers.
_OLD_TEXT_LAYERS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def parse_lora_key(key: str) -> LoraKey | None:
    """What a key stands for; None when it is not a factor, an alpha or a magnitude (of a DoRA) on a known part."""
    for pattern, role in _ROLES:
        match = pattern.search(key)
        if match:
            placed = _place(key[: match.start()], old=match.group(0).startswith("_lora"))
            return LoraKey(placed[0], placed[1], role, placed[2]) if placed else None
    return None


def algorithm_of(keys: Iterable[str]) -> Algorithm:
    """The kind of adapter the keys belong to. DoRA's keys stand beside plain LoRA factors, so it is looked for first."""
    seen = set(keys)
    for pattern, name in _ALGORITHMS:
        if any(pattern.search(key) for key in seen):
            return name
    parsed = any(parse_lora_key(key) for key in seen)
    return "lora" if parsed else "unknown"


def _place(name: str, old: bool) -> tuple[LoraPart, str, Naming] | None:
    """Part, layer in underscore form, naming."""
    for prefix, part in _KOHYA.items():
        if name.startswith(prefix):
            return part, name.removeprefix(prefix).removeprefix("text_model_"), "kohya"
    naming: Naming = "diffusers"
    if name.startswith("base_model.model."):
        name, naming = name.removeprefix("base_model.model."), "peft"
    for prefix, part in _DOTTED.items():
        if name.startswith(prefix):
            return part, _underscored(name.removeprefix(prefix), part, old), naming
    for prefix, part in _BARE.items():
        if name.startswith(prefix):
            return part, _underscored(name, part, old), "peft"
    return None


def _underscored(name: str, part: LoraPart, old: bool) -> str:
    """The layer's name with underscores for dots, old spellings made current."""
    name = name.removeprefix("base_model.model.").removeprefix("text_model.").replace(".processor.", ".")
    if old:
        head, _, last = name.rpartition(".")
        current = _OLD_TEXT_LAYERS.get(last, last) if part != "unet" else {"to_out": "to_out.0"}.get(last, last)
        name = f"{head}.{current}"
    return name.replace(".", "_")
