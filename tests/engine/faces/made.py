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
AROUND_ONE = ("modulation.bias", "running_var", "norm1.weight", "norm2.weight", "norm.weight", "norm_out.weight")
NORMS = ("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")


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
            values = 0.1 * values + (name.endswith((*AROUND_ONE, *NORMS)) or "ln" in name)
        elif name.endswith("weight") and "constant" not in name and "embedding" not in name:
            values = values / np.sqrt(np.prod(shape[2:] if shape[0] == 1 else shape[1:]))
        found[name] = torch.tensor(values.astype(np.float32))
    return found


def shapes_of(network: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in load_json("faces/shapes.json")[network].items()}


def vectors() -> dict[str, NDArray[np.float32]]:
    return dict(np.load(vector_path("faces/outputs.npz")))


def made_file(folder: Path, network: str, name: str, prefix: str = "") -> Path:
    """A file of the network with made-up weights."""
    state = weights(shapes_of(network), SEEDS[network])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({prefix + key: value for key, value in state.items()}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"
