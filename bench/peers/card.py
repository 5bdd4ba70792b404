"""The graphics card of a contender's process, and that of the machine. Standard library only, until a `Card` is asked."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

_QUESTION = ("name", "driver_version", "memory.total")


class NoCard:
    """Where the processor paints, work is done when a call returns."""

    def settle(self) -> None:
        """Nothing is under way."""

    def peak(self) -> None:
        """No card has memory."""

    def facts(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}


class Card:
    """The current CUDA device. From its making on it watches how much memory is allocated."""

    def __init__(self) -> None:
        import torch

        self._cuda: Any = torch.cuda
        self._version = torch.version.cuda
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()

    def settle(self) -> None:
        """Wait until all of its work is done."""
        self._cuda.synchronize()

    def peak(self) -> int:
        """The most bytes that were allocated at once."""
        return int(self._cuda.max_memory_allocated())

    def facts(self) -> dict[str, Any]:
        """For the result."""
        major, minor = self._cuda.get_device_capability()
        return {"name": self._cuda.get_device_name(), "compute_capability": f"{major}.{minor}", "cuda": self._version}


def machine_card() -> dict[str, str]:
    """Name, driver version and memory of the first NVIDIA card, as `nvidia-smi` tells; empty where it does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(_QUESTION)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    first = told.strip().splitlines()[:1]
    return dict(zip(_QUESTION, (part.strip() for part in first[0].split(",")), strict=False)) if first else {}
