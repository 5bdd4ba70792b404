"""Fooocus's own metadata, one JSON object, as A1111 text. (Its other scheme is A1111's text already.)"""

from __future__ import annotations

import json
import re
from typing import Any

from studio.infotext.code_names import sampler_label, schedule_label
from studio.infotext.quote import quote

_SIZE = re.compile(r"\((\d{1,9}), (\d{1,9})\)")
_KEYS = {
    "Steps": "steps",
    "Sampler": "sampler",
    "Schedule type": "scheduler",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Model hash": "base_model_hash",
    "Model": "base_model",
    "VAE": "vae",
    "Clip skip": "clip_skip",
    "Refiner": "refiner_model",
    "Refiner switch at": "refiner_switch",
    "Sharpness": "sharpness",
    "ADM Guidance": "adm_guidance",
    "Performance": "performance",
    "Version": "version",
}
_LABELS = {"Sampler": sampler_label, "Schedule type": schedule_label}


def fooocus_infotext(text: str) -> str | None:
    """The text for a picture's JSON, or None where `text` is not Fooocus's object.

    The prompt is the one that was painted, after styles and expansion, where the object has it.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or "base_model" not in data or "steps" not in data:
        return None
    pairs = {key: _plain(data.get(name)) for key, name in _KEYS.items()}
    for key, label in _LABELS.items():
        pairs[key] = label(pairs[key])
    if size := _SIZE.fullmatch(str(data.get("resolution", ""))):
        pairs["Size"] = f"{size[1]}x{size[2]}"
    if pairs["Refiner"] in ("", "None"):
        del pairs["Refiner"], pairs["Refiner switch at"]
    else:
        pairs["Refiner switch by sampling steps"] = "True"
    listed = data.get("loras")
    loras = [lora for lora in (listed if isinstance(listed, list) else ()) if isinstance(lora, list) and len(lora) >= 2]
    pairs["Lora hashes"] = ", ".join(f"{lora[0]}: {lora[2]}" for lora in loras if len(lora) > 2)
    pairs["Lora weights"] = ", ".join(f"{lora[0]}: {lora[1]}" for lora in loras)
    negative = _prompt(data, "negative_prompt")
    lines = [_prompt(data, "prompt"), *([f"Negative prompt: {negative}"] if negative else [])]
    return "\n".join([*lines, ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items() if value)])


def _prompt(data: dict[str, Any], name: str) -> str:
    full = data.get(f"full_{name}")
    parts = full if isinstance(full, list) and full else [data.get(name)]
    return ", ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _plain(value: object) -> str:
    return str(value) if isinstance(value, (str, int, float)) else ""
