"""One worker process as the server sees it: spawn it, talk to it, keep its log, notice and explain its death. No torch.

A `WorkerProcess` lives once; `WorkerEngine` makes a new one when it is gone.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from studio.engine.wire import EXIT_BROKEN_DEVICE, Channel, Message, WireError
from studio.errors import StudioError, WorkerDied, from_dict
from studio.paths import REPOSITORY
from studio.schema.engine import EngineInfo

LOG_BYTES = 2**20
LOG_FILES = 3
_ADVICE = {
    "SIGKILL": "Usually the machine had no memory left: try a smaller size or batch, or close other programs.",
    "SIGBUS": "Usually a model file was changed or cut off while it was in use, or the disk failed: check the file.",
    "SIGTERM": "Something outside this program ended it.",
}
_CRASH_ADVICE = "A native library crashed: the worker's log has the details."


class WorkerProcess:
    """A running (or dead) worker.

    Args:
        command: what to run; it speaks the frames of `wire.py` on stdin and stdout.
        log_file: where its stderr goes, rotated at 1 MB, three files kept; None keeps none.
        on_death: called once, from a thread, when the process has ended.
    """

    def __init__(
        self, command: Sequence[str], log_file: Path | None, on_death: Callable[[WorkerProcess], None]
    ) -> None:
        self.info: EngineInfo | None = None
        """What it last said about itself; None until it is ready."""
        self.failure: StudioError | None = None
        """Why it could not start, in its own words."""
        self._ready_since = self._last_sign = time.monotonic()
        self.exit_code: int | None = None
        self.gone = threading.Event()
        """Set when it has ended and everything it sent has been handed out."""
        self._log_file = log_file
        self._on_death = on_death
        self._jobs: dict[int, queue.SimpleQueue[Message]] = {}
        self._last_lines: deque[str] = deque(maxlen=5)
        self._process = _spawn(command)
        assert self._process.stdout and self._process.stdin and self._process.stderr
        self._channel = Channel(self._process.stdout, self._process.stdin)
        self._logger = threading.Thread(
            target=self._keep_log, args=(self._process.stderr,), name="worker-log", daemon=True
        )
        self._logger.start()
        threading.Thread(target=self._read, args=(self._process.stdout,), name="worker-reader", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def has_jobs(self) -> bool:
        """Whether answers are awaited."""
        return bool(self._jobs)

    @property
    def silent_seconds(self) -> float:
        """How long nothing has come from it. Signs of life come every second once it is ready."""
        return time.monotonic() - self._last_sign

    @property
    def ready_seconds(self) -> float:
        """How long it has been ready; 0 before."""
        return 0.0 if self.info is None else time.monotonic() - self._ready_since

    def send(self, kind: str, body: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Write a request. A process that is gone takes none: `gone` tells."""
        with contextlib.suppress(OSError, ValueError):
            self._channel.send(kind, body, blobs)

    def open_job(self, job: int) -> queue.SimpleQueue[Message]:
        """Where answers to this job will arrive."""
        return self._jobs.setdefault(job, queue.SimpleQueue())

    def close_job(self, job: int) -> None:
        """Drop what still comes for this job."""
        self._jobs.pop(job, None)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    def stop(self, patience: float = 2.0) -> None:
        """Close its stdin, which ends it, then tell it (TERM), then force it (KILL), `patience` seconds apart; returns when it is gone."""
        self._channel.close()
        for force in (self._process.terminate, self._process.kill):
            if self.gone.wait(patience):
                return
            with contextlib.suppress(OSError):
                force()
        self.gone.wait(patience)

    def death(self) -> StudioError:
        """Why it is gone, for the user, with advice: `WorkerDied`, or in its own words why it could not start."""
        if self.failure is not None:
            return self.failure
        how, advice = _explain(self.exit_code)
        parts = [f"The worker process {how}{'' if self.info else ' before it was ready'}."]
        parts += [advice] if advice else []
        if self.info is None and self._last_lines:
            parts.append(f"Its last words: {self._last_lines[-1]}")
        if self._log_file is not None:
            parts.append(f"Its log is {self._log_file}.")
        return WorkerDied(" ".join([*parts, "The next job gets a new process."]))

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            try:
                while (message := self._channel.receive()) is not None:
                    self._last_sign = time.monotonic()
                    self._sort(message)
            except (WireError, OSError, ValueError) as error:
                self._last_lines.append(f"unreadable answer: {error}")
                self.kill()
        self.exit_code = self._process.wait()
        self._logger.join(timeout=1.0)
        self._channel.close()
        self.gone.set()
        self._on_death(self)

    def _sort(self, message: Message) -> None:
        if message.kind == "info":
            self._ready_since = self._ready_since if self.info else time.monotonic()
            self.info = EngineInfo.model_validate(message.body)
        elif message.kind == "failed":
            self.failure = from_dict(message.body["error"])
        else:
            inbox = self._jobs.get(int(message.body["job"]))
            if inbox is not None:
                inbox.put(message)

    def _keep_log(self, stream: IO[bytes]) -> None:
        handler = _log_handler(self._log_file)
        with stream, contextlib.closing(handler):
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    self._last_lines.append(line)
                    handler.emit(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))


def worker_command(choices: Sequence[str], checkpoints: int, copies: tuple[Path, int] | None) -> list[str]:
    """The real worker, on this Python. `choices` are device, attention, precision, what is compiled, and levers to be left out."""
    names = ("device", "attention", "precision", "compiled", "without")
    options = dict(zip(names, choices, strict=True)) | {"checkpoints": str(checkpoints)}
    if copies:
        options |= {"copies": str(copies[0].absolute()), "copies-bytes": str(copies[1])}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "studio.engine.worker", *flags]


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start it in the folder that holds the package, so that `-m studio…` finds it whether installed or not."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0) if os.name == "nt" else 0
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env=environment,
        creationflags=flags,
    )


def _log_handler(file: Path | None) -> logging.Handler:
    """A rotating file; when there is none, or it cannot be written, a handler that keeps nothing."""
    if file is None:
        return logging.NullHandler()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return logging.handlers.RotatingFileHandler(
            file, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8"
        )
    except OSError:
        return logging.NullHandler()


def _explain(code: int | None) -> tuple[str, str]:
    """How a process with this exit code ended, and what to do about it."""
    if code is None:
        return "ended", ""
    if code == EXIT_BROKEN_DEVICE:
        return "ended because its device failed", ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was killed by {name}", _ADVICE.get(name, _CRASH_ADVICE)
    if code >= 0xC0000000:  # Windows exception codes
        return f"crashed with code {code:#x}", _CRASH_ADVICE
    return f"ended with exit code {code}", ""
