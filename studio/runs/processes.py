"""What is said and done about the processes that train, from outside."""

from __future__ import annotations

import contextlib
import subprocess
import time

import psutil  # type: ignore[import-untyped]

from studio.runs.folder import RunView
from studio.trainer import log_tail
from studio.training.runs import RunFailed


def fail(view: RunView, message: str) -> None:
    """Write into the run's events that it failed; nobody else will."""
    with contextlib.suppress(OSError):
        view.folder.append(RunFailed(time=time.time(), message=message))


def never_began(view: RunView, code: int) -> None:
    """A process ended before it sat down: nobody but us can say so."""
    end = log_tail(view.folder).strip() or "its log is empty"
    fail(view, f"The training process ended with code {code} before it began. The end of {view.folder.log}: {end}")


def family(view: RunView, started: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    """The process that trains `view` and all below it, and the one that was started for it."""
    heads = [view.sitting.process() if view.sitting else None]
    if started is not None and started.poll() is None:
        with contextlib.suppress(psutil.Error):
            heads.append(psutil.Process(started.pid))
    found: dict[int, psutil.Process] = {}
    for head in filter(None, heads):
        with contextlib.suppress(psutil.Error):
            found |= {each.pid: each for each in (*head.children(recursive=True), head)}
    return list(found.values())
