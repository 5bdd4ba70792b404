"""Who trains: the process that sits at a run, as its folder says.

<run>/process.json    pid and birth of the last process that began, and how long events.jsonl was then
<run>/queued.json     when the run was put into the queue; gone as soon as a process begins
<run>/lock            locked by that process for as long as it lives, so that a run never has two
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

from studio.errors import TrainingError
from studio.locking import BUSY, lock
from studio.paths import atomic_write, storage_error
from studio.training.runs import RunFolder

SAME_SECONDS = 2.0
"""How far two readings of one process's start time may lie apart."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Sitting:
    """A process at a run; `started` is its start in Unix seconds, `offset` the length of events.jsonl in bytes when it began.

    `birth` tells it from every other process that has its pid at some time, see `_birth`; earlier versions did not write it.
    """

    pid: int
    started: float
    offset: int
    birth: str = ""

    def process(self) -> psutil.Process | None:
        """The process, if it lives. A pid that now belongs to another one, or a zombie, is none."""
        try:
            found = psutil.Process(self.pid)
            if not self._is(found) or found.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.Error:
            return None
        return found

    def _is(self, found: psutil.Process) -> bool:
        if self.birth and (birth := _birth(self.pid)):
            return self.birth == birth
        return bool(abs(found.create_time() - self.started) <= SAME_SECONDS)


def last_sitting(run: RunFolder) -> Sitting | None:
    """The last process that began with `run`; None when there was none, or its file cannot be read."""
    try:
        return Sitting(**json.loads((run.path / "process.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def claim(run: RunFolder) -> IO[str]:
    """Sit down at `run`: called by the process that trains, which keeps what is returned open as long as it lives.

    A line of events that a killed process left half written is cut off. Raises `TrainingError` when another process has the
    run, `StorageError` when its folder cannot be written.
    """
    try:
        stream = (run.path / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise storage_error(run.path, error) from error
    try:
        lock(stream, wait=False)
    except OSError as error:
        stream.close()
        if error.errno not in BUSY:
            raise storage_error(run.path, error) from error
        raise TrainingError(f"{run.id} is being trained by another process already.") from None
    own = psutil.Process()
    sitting = Sitting(own.pid, own.create_time(), run.whole_lines(), _birth(own.pid))
    atomic_write(run.path / "process.json", json.dumps(asdict(sitting)).encode())
    (run.path / "queued.json").unlink(missing_ok=True)
    return stream


def _birth(pid: int) -> str:
    """Which boot of the machine a process was started in, and how many clock ticks after it; empty where the system does not say.

    On Linux a start in Unix seconds is these ticks added to the time of boot, which moves whenever the clock is set.
    """
    try:
        boot, facts = _BOOT.read_text("ascii").strip(), Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    behind_the_name = facts.rpartition(b")")[2].split()  # a name may hold spaces and brackets
    return f"{boot}/{behind_the_name[19].decode()}"
