"""Starting a training run as its own process, and following what it says. Composition: the faces use only this.

The run folder is the truth. The process that trains is detached: ending the program that started it does not end the
run, and starting the same recipe again resumes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.computing import computing_environment
from studio.errors import TrainingError
from studio.paths import REPOSITORY
from studio.schema.training import load_training_config
from studio.training.runs import (
    Event,
    RunFailed,
    RunFinished,
    RunFolder,
    RunStarting,
    RunStopped,
    prepare_run,
    read_events,
    run_of,
    worker_command,
)
from studio.training.sitting import last_sitting

POLL_SECONDS = 0.2
LOG_TAIL = 400
if sys.platform == "win32":
    # It knows no sessions: with a group and a console of its own the process hears no Ctrl-C and outlives the server's window.
    DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    DETACHED = 0


def start_worker(run: RunFolder, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the process that trains `run`, detached: it outlives this one. What it prints goes into the run's log.

    Nobody may be training it. The first event is there before the process is: that can take seconds to load what it needs.
    """
    run.whole_lines()
    run.append(RunStarting(time=time.time()))
    with run.log.open("ab") as log:
        return subprocess.Popen(
            command,
            creationflags=DETACHED,
            cwd=REPOSITORY,
            env=computing_environment(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def log_tail(run: RunFolder, size: int = LOG_TAIL) -> str:
    """The end of a run's log, at most `size` bytes; empty when there is none."""
    try:
        with run.log.open("rb") as stream:
            stream.seek(-min(size, stream.seek(0, os.SEEK_END)), os.SEEK_END)
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


class TrainingSession:
    """One sitting of a run: a worker process and the events it writes."""

    def __init__(self, recipe: Path, runs: Path, device: str = "auto") -> None:
        """Prepare (or find again) the run of `recipe` below `runs` and start its worker on `device`.

        Raises `SettingsError` for the recipe, `TrainingError` when the run is being trained already.
        """
        run = run_of(load_training_config(recipe), runs)
        sitting = last_sitting(run)
        if (
            sitting and sitting.process()
        ):  # nothing of it is touched then: neither its configuration nor what is wished of it
            raise TrainingError(f"{run.id} is being trained already, by process {sitting.pid}.")
        self.run: RunFolder = prepare_run(recipe, runs)
        self._offset = self.run.events.stat().st_size if self.run.events.exists() else 0
        self._process = start_worker(self.run, worker_command(self.run, sys.executable, device=device))

    def events(self) -> Iterator[Event]:
        """Events of this sitting as they come, until the worker has ended.

        Raises `TrainingError` when the worker ends without saying how.
        """
        while True:
            ended = self._process.poll() is not None
            found, self._offset = read_events(self.run, self._offset)
            yield from found
            if any(isinstance(event, (RunFinished, RunStopped, RunFailed)) for event in found):
                self._process.wait()
                return
            if ended:
                raise TrainingError(
                    f"The training process ended with code {self._process.returncode}. "
                    f"The end of {self.run.log}: {log_tail(self.run).strip()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ask the worker to save and end within a step."""
        self.run.request_stop()

    def end(self, patience: float) -> None:
        """Let the worker stop, and kill it where it has not ended after `patience` seconds: for those whose run nobody goes on with."""
        if self._process.poll() is not None:
            return
        self.stop()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when the wait is interrupted
            self._process.kill()
            self._process.wait()
