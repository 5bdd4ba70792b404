"""The process that trains: ``python -m studio.training.worker RUN_DIR [--threads N]``.

It runs or resumes the run in RUN_DIR and ends with 0 when the run is finished or was stopped (SIGINT, SIGTERM or the run's stop file),
with 1 when it failed. Progress goes to the run's events.jsonl; it is no server and takes no requests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from studio.errors import StudioError, TrainingError, error_text
from studio.training.runs import RunFailed, RunFinished, RunFolder, RunStopped, read_events
from studio.training.sitting import claim, last_sitting

if TYPE_CHECKING:
    import torch

LEAVING_SECONDS = 3.0
"""A process that was killed is gone this long after its connections were closed."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.training.worker", description="Run or resume a training run."
    )
    parser.add_argument("run_dir", type=Path, help="run folder, made by prepare_run")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 lets torch decide")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or mps, for methods that can use another than the CPU"
    )
    options = parser.parse_args(arguments)
    run = RunFolder(options.run_dir)
    try:
        held = claim(run) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext()
    except StudioError as error:  # said to nobody but the log: the run's events belong to the process that has it
        sys.stderr.write(error.message + "\n")
        return 1
    with held:
        return _sit(run, options.threads, options.device)


def _sit(run: RunFolder, threads: int, device: str) -> int:
    try:
        return _train(run, threads, device)
    except StudioError as error:
        _fail(run, error.message)
    except Exception as error:
        traceback.print_exc()
        _fail(run, f"Training broke down ({error_text(error)}). What it had saved is kept; its log has the details.")
    return 1


def _train(run: RunFolder, threads: int, device: str) -> int:
    import torch

    from studio.training.context import StopTraining, TrainingContext
    from studio.training.methods import run_method
    from studio.training.parallel import Team

    if threads > 0:
        torch.set_num_threads(threads)
    stop = threading.Event()

    def ask_to_stop(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    config, team = run.config(), Team.from_environment()
    if config.method.on_accelerator and team.size != config.processes:
        raise TrainingError(f"{config.processes} processes were to share this run, {team.size} came together.")
    context = TrainingContext(config, run, stop.is_set, device=_device(device, config.method.on_accelerator), team=team)
    try:
        model = run_method(context)
    except StopTraining:
        ending: RunStopped | RunFinished = RunStopped(time=time.time())
    else:
        ending = RunFinished(time=time.time(), model=str(model))
    if context.team.leads:
        run.append(ending)
    return 0


def _device(name: str, usable: bool) -> torch.device:
    """The device to train on; each process of a team has a GPU of its own."""
    import torch

    from studio.engine.hardware import choose_hardware

    device = choose_hardware(cast(Any, name)).device if usable else torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


def _fail(run: RunFolder, message: str) -> None:
    sys.stderr.write(message + "\n")
    if not _over(run):
        run.append(RunFailed(time=time.time(), message=message))


def _over(run: RunFolder) -> bool:
    """Whether this sitting has ended already: one of the processes said how, or the leading one was killed.

    The others of a team then break as they find it gone, which is not why the run ended. They find its connections closed a little before
    it is gone, so they wait for that.
    """
    sitting = last_sitting(run)
    if sitting is None:
        return False
    deadline = time.monotonic() + (0 if sitting.pid == os.getpid() else LEAVING_SECONDS)
    while not _has_ending(run, sitting.offset) and sitting.process() is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _has_ending(run: RunFolder, offset: int) -> bool:
    return any(isinstance(event, RunFinished | RunStopped | RunFailed) for event in read_events(run, offset)[0])


if __name__ == "__main__":
    sys.exit(main())
