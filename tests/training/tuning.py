"""Tiny runs of the methods that train a checkpoint further: an installation in a folder, and runs in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.training.context import TrainingContext
from studio.training.methods import run_method
from studio.training.runs import Event, RunFolder, read_events
from tests.tiny_models import tiny_folder

SIDE = 64


def studio(root: Path, family: str = "sprout", pictures: int = 6, model: Path | None = None) -> Path:
    """A data folder with the tiny model of `family` as `tiny`, and drawn pictures with captions in `pictures`."""
    source = model or tiny_folder(family)
    (root / "checkpoints").mkdir(parents=True)
    if source.is_dir():
        shutil.copytree(source, root / "checkpoints" / "tiny")
    else:
        shutil.copy(source, root / "checkpoints" / "tiny.safetensors")
    (root / "pictures").mkdir()
    rng = np.random.default_rng(7)
    for index in range(pictures):
        small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / "pictures" / f"{index}.png")
        (root / "pictures" / f"{index}.txt").write_text(f"a thing, number {index}")
    return root


def settings(kind: str = "lora", **method: Any) -> dict[str, Any]:
    """A configuration; `method` replaces what stands in its method."""
    common: dict[str, Any] = {
        "kind": kind,
        "model": "tiny",
        "data": {"path": "pictures", "resolution": SIDE},
        "steps": 6,
        "batch": 2,
        "optimizer": {"learning_rate": 1e-3},
        "output": {"number_format": "fp32"},
    }
    if kind != "full":
        common["network"] = {"rank": 4, "alpha": 8}
    return {"name": "tiny", "seed": 3, "precision": "fp32", "method": {**common, **method}}


def run_in(root: Path, config: dict[str, Any], name: str = "tiny-run") -> RunFolder:
    """A run folder in which nothing has happened."""
    run = RunFolder(root / "outputs" / "runs" / name)
    run.path.mkdir(parents=True)
    (run.path / "config.json").write_text(json.dumps(config))
    return run


def train(run: RunFolder) -> Path:
    """One sitting in this process."""
    with torch.random.fork_rng():
        return run_method(TrainingContext(run.config(), run))


def events(run: RunFolder, kind: str) -> list[Any]:
    """The events of one kind."""
    found: list[Event] = read_events(run)[0]
    return [event for event in found if event.kind == kind]
