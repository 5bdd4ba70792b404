"""Models, LoRAs and embeddings that a text names outside the prompt.

    Lora hashes: "name: 12hex, ..."                 A1111        Lora weights: "name: 0.1, ..."       Fooocus
    TI hashes: "name: 12hex, ..."                   A1111        TI: "name, ..."                      Forge
    Hashes: {"model": "10hex", "lora:name": "10hex", "embed:name": ..., "vae": ...}    Civitai's extension for A1111
    Civitai resources: [{"type": "lora", "weight": 0.8, "hash": ..., "modelName": ...}]               Civitai's generator
    Lora_0 Model name / Model hash / Strength model / Strength clip                    savers for ComfyUI

Everything here is untrusted text: what has another form than expected is passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LORA_TYPES = frozenset({"lora", "locon", "lycoris", "dora"})
MAX_LORAS = 100
"""More than this in one text is no picture's."""
MAX_EMBEDDINGS = 100
DIALECT_KEYS = ("Lora hashes", "Lora weights", "TI hashes", "TI", "Hashes", "Civitai resources", "Civitai metadata")

_NUMBERED = re.compile(r"Lora_(\d{1,3}) (Model name|Model hash|Strength model|Strength clip)")
_NOT_IN_TAGS = re.compile(r"[<>:\r\n]+")
_HEX = re.compile(r"[0-9a-fA-F]{8,64}")
_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
_MAX_NAME = 200


@dataclass(frozen=True)
class NamedLora:
    """A LoRA a text names: `name` or `digits` may be empty, not both.

    `weights` are text encoder and U-Net; None where the text only says that the LoRA belongs to a tag of the prompt.
    """

    name: str
    digits: str
    weights: tuple[float, float] | None = None


def is_dialect_key(key: str) -> bool:
    """Whether the functions here read this parameter."""
    return key in DIALECT_KEYS or _NUMBERED.fullmatch(key) is not None


def named_hashes(text: str) -> dict[str, str]:
    """`Lora hashes`, such as "one: 0123456789ab, two: ...", by name. `Lora weights` has the same form."""
    entries = (entry.rpartition(":") for entry in text.split(","))
    return {name.strip(): short_hash.strip() for name, colon, short_hash in entries if colon}


def named_loras(pairs: Mapping[str, str]) -> list[NamedLora]:
    """Every LoRA the pairs name, at most `MAX_LORAS`. One that is named twice counts once, with its weights."""
    found: dict[str, NamedLora] = {}
    for lora in (*_resources(pairs), *_numbered(pairs), *_fooocus(pairs), *_by_hash(pairs)):
        key = lora.name or lora.digits
        old = found.get(key)
        if old is None:
            found[key] = lora
        else:
            found[key] = NamedLora(old.name, old.digits or lora.digits, old.weights or lora.weights)
    return list(found.values())[:MAX_LORAS]


def named_embeddings(pairs: Mapping[str, str]) -> dict[str, str]:
    """Every embedding the pairs name, at most `MAX_EMBEDDINGS`: its hash by its word, "" where only the word stands there."""
    found = {name.strip(): "" for name in pairs.get("TI", "").split(",")}
    civitai = {name.removeprefix("embed:"): value for name, value in _hashes(pairs).items() if name[:6] == "embed:"}
    for name, value in {**civitai, **named_hashes(pairs.get("TI hashes", ""))}.items():
        found[name] = _digits(value)
    return {name: digits for name, digits in list(found.items())[:MAX_EMBEDDINGS] if name}


def implied_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """`Model`, `Model hash` and `VAE hash` where only `Hashes` or `Civitai resources` tell them."""
    implied: dict[str, str] = {}
    hashes = _hashes(pairs)
    for key, name in (("Model hash", "model"), ("VAE hash", "vae")):
        if digits := _digits(hashes.get(name)):
            implied[key] = digits
    for entry in _entries(pairs):
        if _text(entry, "type").casefold() == "checkpoint" and (digits := _digits(entry.get("hash"))):
            implied = {"Model hash": digits, "Model": _text(entry, "modelName"), **implied}
    if pairs.get("Model hash") or pairs.get("Model"):
        implied = {key: value for key, value in implied.items() if key == "VAE hash"}
    if pairs.get("VAE hash") or pairs.get("VAE"):
        implied.pop("VAE hash", None)
    return {key: value for key, value in implied.items() if value}


def unnamed_resources(pairs: Mapping[str, str]) -> list[str]:
    """Civitai's resources that carry no hash: what can be told about them, for a note."""
    return [_described(entry) for entry in _entries(pairs) if not _digits(entry.get("hash"))]


def tag_name(name: str) -> str:
    """`name` as it can stand in a tag: without a file's suffix and without the signs that part a tag."""
    name = _NOT_IN_TAGS.sub("", name).strip()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name[:_MAX_NAME]


def _resources(pairs: Mapping[str, str]) -> Iterable[NamedLora]:
    for entry in _entries(pairs):
        digits = _digits(entry.get("hash"))
        if _text(entry, "type").casefold() in LORA_TYPES and digits:
            weight = _number(entry.get("weight", 1.0))
            yield NamedLora(tag_name(_text(entry, "modelName")), digits, (weight, weight))


def _numbered(pairs: Mapping[str, str]) -> Iterable[NamedLora]:
    loras: dict[int, dict[str, str]] = {}
    for key, value in pairs.items():
        if match := _NUMBERED.fullmatch(key):
            loras.setdefault(int(match[1]), {})[match[2]] = value
    for _, lora in sorted(loras.items()):
        name, digits = tag_name(lora.get("Model name", "")), _digits(lora.get("Model hash"))
        if name or digits:
            model = _number(lora.get("Strength model", 1.0))
            yield NamedLora(name, digits, (_number(lora.get("Strength clip", model)), model))


def _fooocus(pairs: Mapping[str, str]) -> Iterable[NamedLora]:
    weights = pairs.get("Lora weights", "")
    for name, text in ({} if weights.startswith(("[", "{")) else named_hashes(weights)).items():
        if tag_name(name):
            weight = _number(text)
            yield NamedLora(tag_name(name), "", (weight, weight))


def _by_hash(pairs: Mapping[str, str]) -> Iterable[NamedLora]:
    civitai = {name.removeprefix("lora:"): value for name, value in _hashes(pairs).items() if name.startswith("lora:")}
    for name, value in {**civitai, **named_hashes(pairs.get("Lora hashes", ""))}.items():
        if name and (digits := _digits(value)):
            yield NamedLora(name, digits)


def _hashes(pairs: Mapping[str, str]) -> dict[str, Any]:
    found = _json(pairs.get("Hashes", ""))
    return found if isinstance(found, dict) else {}


def _entries(pairs: Mapping[str, str]) -> list[dict[str, Any]]:
    found = _json(pairs.get("Civitai resources", ""))
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _described(entry: Mapping[str, Any]) -> str:
    kind, name = _text(entry, "type") or "model", _text(entry, "modelName")
    version = _text(entry, "modelVersionName") or _text(entry, "modelVersionId")
    return " ".join(part for part in (kind, repr(name) if name else "", version) if part)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return str(value)[:_MAX_NAME] if isinstance(value, (str, int)) else ""


def _digits(value: object) -> str:
    """A hash in lower case, or "" for what is none."""
    text = value.strip() if isinstance(value, str) else ""
    return text.lower() if _HEX.fullmatch(text) else ""


def _number(value: object) -> float:
    """A weight; 1 for what is no finite number."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else 1.0
    except (ValueError, OverflowError):
        return 1.0
    return number if math.isfinite(number) else 1.0
