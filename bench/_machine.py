"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instructions that decide how fast a processor multiplies, in the words of Linux."""
_NUMBERS = {"cpu family": "family", "model": "model", "stepping": "stepping"}
_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Platform, Python, processor (see `processor`), cores, and how busy they are before anything is measured."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        **processor(),
        "cores": os.cpu_count(),
        "load_at_start": load(),
    }


def load() -> float | None:
    """Processes that ran or waited in the last minute; None where the system does not count them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def threads() -> int:
    """How many threads a worker of the program has that is started now: OMP_NUM_THREADS, else one a physical core."""
    from studio.engine.hardware import usable_cores

    return int(os.environ.get("OMP_NUM_THREADS") or usable_cores())


def processor() -> dict[str, Any]:
    """The first processor: its name, which several generations may share, and what tells these apart, as far as /proc says it.

    That is `family`, `model` and `stepping`, whole numbers, and `flags`: of each of `FLAGS`, whether the processor has it.
    """
    try:
        first = _CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        first = ""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    found: dict[str, Any] = {"processor": told.get("model name") or platform.processor()}
    found |= {ours: int(told[name]) for name, ours in _NUMBERS.items() if told.get(name, "").isdecimal()}
    if "flags" in told:
        has = told["flags"].split()
        found["flags"] = {flag: flag in has for flag in FLAGS}
    return found


def described(machine: Mapping[str, Any]) -> str:
    """The processor of a result's `machine` in words, as far as the result knows it."""
    numbers = " ".join(f"{key} {machine[key]}" for key in ("family", "model") if key in machine)
    flags = ", ".join(flag for flag, there in machine.get("flags", {}).items() if there)
    return ", ".join(part for part in (machine["processor"], numbers, flags and f"with {flags}") if part)


def peak_bytes() -> int | None:
    """The most memory that this process had resident; None where Linux's /proc does not tell.

    `getrusage` would not do: its peak also counts what the process was before it became this program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
