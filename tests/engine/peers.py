"""Results and contenders of `bench generate --peers` that nobody measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.peers import client, parity


def entry(seconds: float, **changes: Any) -> dict[str, Any]:
    """A contender's figures, with `changes`."""
    spread = {"median": seconds, "min": seconds, "max": seconds, "runs": 6}
    return {
        "dtype": "bfloat16", "unet_rel_l2": 0.012, "picture_max_difference": 7, "picture_mean_difference": 0.76, "peak_gib": 2.5,
        "cpu_seconds_a_picture": spread, "wall_seconds_a_picture": spread, **changes,
    }  # fmt: skip


def result(**contenders: dict[str, Any]) -> dict[str, Any]:
    """Of one workload, with `contenders` beside or in place of two that are always there."""
    versus = {
        "diffusers-bf16": {"times_as_fast": 1.2, "times_as_fast_wall": 1.2, "peak_memory": 0.9},
        "floor": {"overhead_percent_cpu": 1.5, "overhead_percent_wall": 2.0},
    }
    seconds = {"cpu": [12.0, 12.0], "wall": [12.0, 12.0], "models": [], "peak": 2**30}
    found = {
        "workload": {"title": "256 px, 8 steps", "models": ["sd15-a"], "loras": [""]},
        "contenders": {"studio": entry(12.0), "diffusers-bf16": entry(14.4), **contenders},
        "studio_against": versus,
        "runs": {"diffusers-bf16": {"studio": seconds, "diffusers-bf16": seconds}},
        "load": [0.2, 1.1],
    }
    return {
        "bench": "generate --peers", "quick": False, "date": "2026-01-01", "machine": {"platform": "here", "cores": 2, "processor": "one"}, "versions": {"torch": "2"},
        "workloads": {"W1": found}, "page": {"seconds": {"median": 3.0}, "cpu_seconds": {"median": 2.5}},
        "first_preview": {
            "goal_ms": 50.0,
            "known_prompts": {"first_preview_seconds": 1.6, "step_seconds": 1.57, "beyond_one_step_ms": 30.0, "runs": 5},
        },
    }  # fmt: skip


def proof(dtype: str = "float32", unet: float = 1.0, picture: int = 100) -> Any:
    """What a contender answers, every number of a kind the same."""
    unets, pictures = np.full((2, 4, 8, 8), unet, np.float32), np.full((1, 8, 8, 3), picture, np.uint8)
    return parity.Proof(dtype, unets, pictures, "2.13")


class Fake:
    """A contender's process that answers at once."""

    asked: ClassVar[list[str]] = []
    dies: ClassVar[set[tuple[str, str]]] = set()

    def __init__(self, name: str, root: Path, checkout: Path | None) -> None:
        self.name, self._root = name, root

    def ask(self, **question: Any) -> dict[str, Any]:
        if (self.name, question["do"]) in Fake.dies:
            raise client.ContenderFailed(f"{self.name}: out of memory")
        if question["do"] == "prove":
            shift = 50 if self.name == "comfyui" else 0
            np.savez(question["out"], unet=proof().unet, pictures=proof(picture=100 + shift).pictures)
            return {"dtype": "float32", "torch": "2.9" if self.name == "comfyui" else "2.13", "seconds": 1.0}
        Fake.asked.append(self.name)
        seconds = {"studio": 2.0, "diffusers-bf16": 3.0, "floor": 1.0}.get(self.name, 8.0)
        pictures = 0 if self.name == "floor" else 4
        models = 0.8 * seconds if self.name == "studio" else None
        return {"cpu": seconds, "wall": 2 * seconds, "models": models, "pictures": pictures, "peak_bytes": 2**30}

    def close(self) -> None: ...
