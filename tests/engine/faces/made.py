"""Small networks with made-up weights: the names and proportions of the published files, a thousandth of their size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tests.vector_files import load_json, vector_path

SEEDS = {"GFPGAN": 1, "RetinaFace": 2, "CodeFormer": 3}


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Random weights of sizes that keep signals alive, by a stream of numbers that numpy guarantees."""
    draw = np.random.RandomState(seed).standard_normal
    found = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        values = draw(shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif len(shape) < 2 or (shape[0] == 1 and name.endswith("bias")):
            scales = name.endswith("modulation.bias") or (name.endswith("weight") and len(values) > 1)
            values = 0.1 * values + scales
        elif name.endswith("weight") and "constant" not in name and "embedding" not in name:
            values = values / np.sqrt(np.prod(shape[2:] if shape[0] == 1 else shape[1:]))
        found[name] = torch.tensor(values.astype(np.float32))
    return found


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in load_json("faces/shapes.json")[network].items()}


def vectors() -> dict[str, NDArray[np.float32]]:
    return dict(np.load(vector_path("faces/outputs.npz")))


def made_file(folder: Path, network: str, name: str, prefix: str = "", **changes: list[float]) -> Path:
    """A file of the network with made-up weights; those whose names end in one of `changes` have its values."""
    state = weights(shapes_of(network), SEEDS[network])
    for ending, values in changes.items():
        state |= {key: torch.tensor(values) for key in state if key.endswith(ending)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({prefix + key: value for key, value in state.items()}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def blind_detector(folder: Path) -> Path:
    """A detector that is sure of no face."""
    nothing = {f"ClassHead.{i}.conv1x1.bias": [1e4, -1e4] * 2 for i in range(3)}
    return made_file(folder, "RetinaFace", "detection_Resnet50_Final", **nothing)
