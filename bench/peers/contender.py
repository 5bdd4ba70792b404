"""What a contender is. Standard library only, as each lives in a process that may lack what others need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.peers.workloads import Job

if TYPE_CHECKING:
    import numpy as np

STUDIO, PLAIN_BF16, PLAIN_FP32, COMFYUI, FLOOR = "studio", "diffusers-bf16", "diffusers-fp32", "comfyui", "floor"
CONTENDERS = (STUDIO, PLAIN_BF16, PLAIN_FP32, COMFYUI, FLOOR)
REFERENCE = PLAIN_FP32
"""Whose pictures the others are compared with."""


class Contender(Protocol):
    """One way to run a model. Models are loaded when a job first asks for them."""

    @property
    def dtype(self) -> str:
        """Number format of the U-Net that is loaded: `float32` ..."""
        ...

    @property
    def model_seconds(self) -> float | None:
        """Processor seconds in calls of the models since it was made; None where they are not told apart."""
        ...

    def paint(self, job: Job) -> list[bytes]:
        """The pictures of `job` as PNG; none from a contender that only does the bare calls."""
        ...

    def unet(self, job: Job) -> np.ndarray[Any, Any]:
        """What the U-Net of `job.model` says to `tensors.probe` of the job's size, float32 [2, C, h, w]."""
        ...


class MissingDependency(Exception):
    """A contender cannot run here; the message says what it lacks."""


def create(name: str, root: Path, checkout: Path | None) -> Contender:
    """The contender `name` on the model files below `root`. Raises `MissingDependency`."""
    if name == COMFYUI:
        from bench.peers.comfyui import ComfyUI

        assert checkout is not None, "asked for without a checkout"
        return ComfyUI(root, checkout)
    if name in (PLAIN_BF16, PLAIN_FP32):
        from bench.peers.plain import Plain

        return Plain(root, "bfloat16" if name == PLAIN_BF16 else "float32")
    from bench.peers.ours import Floor, Ours

    return Floor(root) if name == FLOOR else Ours(root)
