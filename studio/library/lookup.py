"""Which entry a user, a client or a picture's text means: by name, title, file name, hash or stem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from studio.schema.models import ModelInfo

_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<hash>[0-9a-fA-F]{6,64})\]", re.DOTALL)
_HASH = re.compile(r"[0-9a-fA-F]{8,64}")
LEGACY_DIGITS = 8
Test = Callable[[ModelInfo], bool]


def find_model(
    text: str, models: Sequence[ModelInfo], legacy_hash: Callable[[ModelInfo], str | None]
) -> ModelInfo | None:
    """The model that `text` means, or None. Exact names win over hashes, hashes over loose names.

    Of a title `name [hash]` the hash counts more than the name. `legacy_hash` gives a file's 8-digit hash of 2022; it is
    asked only when all else fails. Where several fit, one without a problem is taken, the first of them.
    """
    text = text.strip()
    title = _TITLE.fullmatch(text)
    name, short_hash = (title["name"], title["hash"].lower()) if title else (text, "")
    if not short_hash and _HASH.fullmatch(text):
        short_hash = text.lower()
    tests: list[Test] = [lambda model: text in _names(model)]
    if short_hash:
        tests.append(lambda model: _has_hash(model, short_hash))
    tests += [
        lambda model: name in _names(model),
        lambda model: name.casefold() in {known.casefold() for known in _names(model)},
        lambda model: name.casefold() in {known.casefold() for known in _stems(model)},
    ]
    if len(short_hash) == LEGACY_DIGITS:
        tests.append(lambda model: legacy_hash(model) == short_hash)
    return next((found for test in tests if (found := _first(models, test))), None)


def _names(model: ModelInfo) -> set[str]:
    """The ways to write the whole name: as listed, with its suffix, as a title (A1111's has the suffix)."""
    suffix = PurePath(model.path).suffix if model.layout == "file" else ""
    names = {model.name, model.name + suffix}
    return names | {f"{name} [{model.short_hash}]" for name in names if model.short_hash}


def _stems(model: ModelInfo) -> set[str]:
    """The ways to write it short: without the sub-folder, and what a LoRA calls itself."""
    stem = model.name.rpartition("/")[2]
    suffix = PurePath(model.path).suffix if model.layout == "file" else ""
    return {stem, stem + suffix, *([model.alias] if model.alias else [])}


def _has_hash(model: ModelInfo, digits: str) -> bool:
    """By any hash that is known: what A1111 shows, the start of the SHA-256 (Forge's for LoRAs), a folder's id."""
    if digits in (model.short_hash, model.model_id):
        return True
    return len(digits) > LEGACY_DIGITS and (model.sha256 or "").startswith(digits)


def _first(models: Iterable[ModelInfo], test: Test) -> ModelInfo | None:
    fitting = [model for model in models if test(model)]
    return next((model for model in fitting if not model.problem), fitting[0] if fitting else None)
