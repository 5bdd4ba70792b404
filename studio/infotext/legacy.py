"""Texts of older versions: what they leave unsaid is added, what they say in another way is put into today's keys."""

from __future__ import annotations

import math
import re

from studio.errors import InvalidRequest
from studio.prompt.weights import parse_weights

_VERSION = re.compile(r"v(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-(\d{1,9}))?")
_SIDE = re.compile(r"\d{1,9}", re.ASCII)
_SIDES = (("Size-1", "512"), ("Size-2", "512"), ("First pass size-1", ""), ("First pass size-2", ""))


def modernise(prompt: str, negative: str, pairs: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The prompt and pairs as AUTOMATIC1111 1.10 would understand them."""
    pairs = {**pairs, **_first_pass(pairs)}
    if "Hypernet" in pairs:
        prompt += f"<hypernet:{pairs['Hypernet']}:{pairs.get('Hypernet strength', '1.0')}>"
    if "Emphasis" not in pairs and (_weighted(prompt) or _weighted(negative)):
        pairs["Emphasis"] = "Original"
    if "FP8 weight" in pairs:
        pairs.setdefault("Cache FP16 weight for LoRA", "False")
    return prompt, {**pairs, **_of_version(prompt, pairs)}


def _first_pass(pairs: dict[str, str]) -> dict[str, str]:
    """Before 1.1, `Size` was the final size and `First pass size` the first one; 0x0 meant about 512x512 pixels."""
    texts = [pairs.get(key, default) for key, default in _SIDES]
    if not all(_SIDE.fullmatch(text) for text in texts):
        return {}
    width, height, *first = (int(text) for text in texts)
    if 0 in first:
        if 0 in (width, height):
            return {}
        scale = 512 / math.sqrt(width * height)
        first = [math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64]
    return {
        "Size-1": str(first[0]),
        "Size-2": str(first[1]),
        "Hires resize-1": str(width),
        "Hires resize-2": str(height),
    }


def _of_version(prompt: str, pairs: dict[str, str]) -> dict[str, str]:
    """Behaviour that later versions changed and kept as an option."""
    match = _VERSION.match(pairs.get("Version", ""))
    if not match:
        return {}
    version = tuple(int(part or 0) for part in match.groups())
    behaviour = {
        "Old prompt editing timelines": version < (1, 6, 0, 0) and "[" in prompt,
        "Pad conds v0": version < (1, 6, 0, 0) and pairs.get("Sampler") in ("DDIM", "PLMS"),
        "Downcast alphas_cumprod": version < (1, 7, 0, 225),
        "Refiner switch by sampling steps": version < (1, 8, 0, 0) and "Refiner" in pairs,
    }
    return {key: "True" for key, applies in behaviour.items() if applies}


def _weighted(text: str) -> bool:
    """Whether the text uses (emphasis)."""
    try:
        return any(weight not in (1.0, -1.0) for _, weight in parse_weights(text))
    except InvalidRequest:
        return True
