"""What a contender is. Standard library only, as each lives in a process that may lack what others need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.peers.workloads import Job

if TYPE_CHECKING:
    import numpy as np

    from studio.engine.hardware import CompileName

STUDIO, PLAIN_BF16, PLAIN_FP32, COMFYUI, FLOOR = "studio", "diffusers-bf16", "diffusers-fp32", "comfyui", "floor"
CONTENDERS = (STUDIO, PLAIN_BF16, PLAIN_FP32, COMFYUI, FLOOR)
SLOW = (PLAIN_FP32, COMFYUI)
"""Those that compute in float32 on a processor, and so take three to four times as long as the others."""
REFERENCE = PLAIN_FP32
"""Whose pictures the others are compared with."""
PLAIN = "diffusers"
COMPILING: dict[str, CompileName] = {"studio-compiled": "blocks", "studio-graphs": "graphs"}
"""The program with `--compile`."""
CARD_PEERS = (PLAIN, *COMPILING)
"""Who is beside the program on a card: diffusers in the number format that the program chooses there, and the program compiled."""
EXACT = "studio-fp32"
"""The program in float32, which is compared and not timed: it must paint what the reference paints."""
_FORMATS = {PLAIN_BF16: "bf16", PLAIN_FP32: "fp32", PLAIN: "auto"}


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


@runtime_checkable
class Bare(Protocol):
    """A contender that can make the model calls of a job and nothing between them."""

    def bare(self, job: Job) -> None:
        """Make them; on a card, hand them over."""
        ...


class MissingDependency(Exception):
    """A contender cannot run here; the message says what it lacks."""


def is_ours(name: str) -> bool:
    """Whether it is this program, or its bare model calls."""
    return name != COMFYUI and name not in _FORMATS


def create(name: str, root: Path, device: str, checkout: Path | None) -> Contender:
    """The contender `name` on the model files below `root`, painting on `device` (cpu, cuda). Raises `MissingDependency`."""
    if name == COMFYUI:
        from bench.peers.comfyui import ComfyUI

        assert checkout is not None, "asked for without a checkout"
        return ComfyUI(root, checkout)
    if name in _FORMATS:
        from bench.peers.plain import Plain

        return Plain(root, _FORMATS[name], device)
    from bench.peers.ours import Floor, Ours

    if name == FLOOR:
        return Floor(root)
    return Ours(root, device, "fp32" if name == EXACT else "auto", compiled=COMPILING.get(name, "off"))
