"""Separate text encoders in generation text, under Forge's keys: `Module 1`, `Module 2` … and, of a second pass, `Hires Module 1` …

Forge has one list of files for text encoders and VAEs. Here the first pass's VAE has A1111's keys (`VAE`, `VAE hash`), so its modules are text
encoders; A1111 has no key for a VAE of the second pass, so that one's modules are both, and all that it does not have of its checkpoint.
Reading does not know which file is what: `studio.localise` finds the VAEs among the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from studio.schema.models import ModelInfo
from studio.schema.parts import BUILT_IN, MAX_TEXT_ENCODERS
from studio.schema.resolved import ResolvedRequest

FIRST, SECOND = "Module", "Hires Module"
HIRES_VAE = "Hires VAE"
"""How older Forges name the VAE of the second pass."""
_KEY = re.compile(rf"({SECOND}|{FIRST}) \d{{1,4}}")
MAX_NAME = 300


def module_pairs(resolved: ResolvedRequest) -> dict[str, object]:
    """The text encoders of the first pass."""
    return _numbered(FIRST, [_stem(encoder) for encoder in resolved.text_encoders])


def hires_module_pairs(resolved: ResolvedRequest) -> dict[str, object]:
    """All files of the second pass, where any is another one than in the first."""
    plan = resolved.hires
    if plan is None or (_paths(plan.vae), _paths(*plan.text_encoders)) == (
        _paths(resolved.vae),
        _paths(*resolved.text_encoders),
    ):
        return {}
    files = [*plan.text_encoders, *([plan.vae] if plan.vae else [])]
    return _numbered(SECOND, [_stem(file) for file in files] or [BUILT_IN])


def module_names(pairs: Mapping[str, str], kind: str) -> tuple[tuple[str, ...], set[str]]:
    """The names under the keys of `kind`, in the order of their numbers, and these keys. Names that no file could have are left out."""
    keys = [key for key in pairs if (match := _KEY.fullmatch(key)) and match[1] == kind]
    keys.sort(key=lambda key: int(key.rpartition(" ")[2]))
    names = tuple(name for key in keys if 0 < len(name := pairs[key].strip()) <= MAX_NAME)
    return names[:MAX_TEXT_ENCODERS], set(keys)


def hires_modules(pairs: Mapping[str, str]) -> tuple[dict[str, Any], set[str]]:
    """Fields of the second pass that the text decides, and the keys that were read. Files that are named are all there are."""
    names, used = module_names(pairs, SECOND)
    same = all(name.casefold().startswith("use same") for name in names)
    found: dict[str, Any] = {} if same else {"text_encoders": names, "vae": "Automatic"}
    if HIRES_VAE in pairs:
        used.add(HIRES_VAE)
        found["vae"] = pairs[HIRES_VAE][:MAX_NAME]
    return found, used


def _numbered(key: str, names: list[str]) -> dict[str, object]:
    return {f"{key} {number}": name for number, name in enumerate(names, start=1)}


def _stem(model: ModelInfo) -> str:
    """The file's name without ending, as Forge writes it."""
    return PurePath(model.path).stem


def _paths(*models: ModelInfo | None) -> list[str | None]:
    return [model.path if model else None for model in models]
