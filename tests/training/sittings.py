"""Sittings of one run in processes of their own, killed at chosen points: `python -m tests.training.sittings RUN POINT...`.

The libraries are loaded once and every sitting is forked from there. A point is where the process kills itself with SIGKILL, in words of
`POINTS` and a count: `step:4` dies in the fourth step of that sitting. After the last point the run is finished.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from studio.training import checkpoint, context
from studio.training import worker as worker_module
from studio.training.methods.lora import method, result
from studio.training.tuning import latents, loop, publish, run, samples, validation

POINTS: dict[str, tuple[Any, str]] = {
    "latents": (latents, "encode"),
    "step": (loop, "picture_losses"),
    "optimizer": (torch.optim.AdamW, "step"),
    "validation": (validation.Validator, "loss"),
    "sample": (samples, "encode_png"),
    "state": (checkpoint, "save_file"),
    "manifest": (checkpoint, "atomic_write"),
    "rename": (Path, "rename"),
    "result": (result, "save_file"),
    "place": (publish, "_placed"),
    "told": (run, "atomic_write"),
}
"""What is called there; `after:` in front kills after the call instead of before."""


def kill_at(point: str) -> None:
    """Make this process die at `point`."""
    *after, name, number = point.split(":")
    holder, attribute = POINTS[name]
    real, left = getattr(holder, attribute), [int(number)]

    def deadly(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if after:
            answer = real(*arguments, **keywords)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer if after else real(*arguments, **keywords)

    setattr(holder, attribute, deadly)


def sit(run_dir: str, prepare: Callable[[], None]) -> int:
    """One sitting in a forked process; its exit code, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    torch.set_num_threads(1)
    context.STOP_POLL_SECONDS = 0.0
    prepare()
    os._exit(worker_module.main([run_dir, "--threads", "1", "--device", "cpu"]))


def main(run_dir: str, *points: str) -> int:
    """Exit code 0 when every point killed its sitting and the last sitting finished."""
    assert method and safetensors  # loaded before forking
    for point in points:
        code = sit(run_dir, lambda point=point: kill_at(point))
        if code != -signal.SIGKILL:
            sys.stderr.write(f"{point}: ended with {code}\n")
            return 2
    return sit(run_dir, lambda: None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
