"""Putting a finished model where the program finds it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from studio.errors import TrainingError
from studio.paths import atomic_write

_KEPT_BESIDE = ("README.md", "contact_sheet.jpg")
"""Files of the target folder that are written by hand or by the evaluation, and survive a new export."""


def publish(model: Path, target: Path) -> None:
    """Replace ``target`` by a copy of ``model`` with two renames; model card and contact sheet stay."""
    fresh, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        shutil.copytree(model, fresh)
        for name in _KEPT_BESIDE:
            if (target / name).exists():
                shutil.copy2(target / name, fresh / name)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        raise TrainingError(
            f"The model could not be published to {target}: {error}. It is complete in {model}."
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def load_as_fp32(config: Path) -> None:
    """Make transformers load the fp16 weights beside the JSON file ``config`` in fp32 when a caller names no dtype, as diffusers does."""
    facts = json.loads(config.read_text("utf-8"))
    atomic_write(config, json.dumps({**facts, "dtype": "float32"}, indent=2).encode() + b"\n")


def forget_origin(model: Path) -> None:
    """Take out of the JSON files below ``model`` where on this machine diffusers had loaded a part from."""
    for config in model.rglob("config.json"):
        facts = json.loads(config.read_text("utf-8"))
        if facts.pop("_name_or_path", None) is not None:
            atomic_write(config, json.dumps(facts, indent=2).encode() + b"\n")
