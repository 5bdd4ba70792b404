"""`WorkerEngine`: the engine seam in the server process. Runs a `DiffusersEngine` in a subprocess, and never imports torch.

A damaged model file (SIGBUS), an out-of-memory kill or a lost CUDA device then costs one job: that job gets `WorkerDied`,
and a new process is started for the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.engine.wire import Message, unpack_event
from studio.engine.worker_process import WorkerProcess, worker_command
from studio.errors import EngineError, StudioError, WorkerDied, from_dict
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Started, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

POLL_SECONDS = 0.05
"""How soon a cancel is passed on."""
SILENCE_SECONDS = 15.0
"""A worker from which nothing has come for so long is frozen: the page says so, and an interrupt ends the process."""

DECODE_SECONDS = 60.0
"""How long a wish to decode a step waits for the worker."""

YOUNG_SECONDS = 10.0
"""A worker that lived no longer than this is replaced when a job comes, not before."""


class WorkerEngine:
    """See `Engine`.

    Args:
        device, attention, precision, compiled, checkpoints: as for `DiffusersEngine`.
        without: levers to be left out, with commas.
        copies: folder and bytes of `Copies`; None keeps none.
        log_file: where the worker's stderr is kept.
        command: what to run instead of the real worker; for tests.
    """

    def __init__(
        self,
        device: str = "auto",
        attention: str = "auto",
        precision: str = "auto",
        compiled: str = "off",
        without: str = "",
        checkpoints: int = 4,
        *,
        copies: tuple[Path, int] | None = None,
        log_file: Path | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        choices = (device, attention, precision, compiled, without)
        self._command = list(command or worker_command(choices, checkpoints, copies))
        self._log_file = log_file
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._process: WorkerProcess | None = None
        self._closed = False

    def start(self, model: ModelInfo | None = None) -> None:
        """Spawn the worker if there is none, and let it load `model`; returns at once."""
        process = self._current()
        if model is not None:
            process.send("warm", {"model": model.model_dump(mode="json")})

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        """See `Engine.run`. Raises `WorkerDied` when the process ends before the job does."""
        yield Started()
        try:
            yield from self._attempt(resolved, cancel, kept)
        except _NeverBegan:  # the process was dying already, of an earlier job or from outside
            yield from self._attempt(resolved, cancel, kept)

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """See `Engine.decode`. Raises `EngineError` when the worker has not come to it within `DECODE_SECONDS`."""
        process, job = self._current(), next(self._numbers)
        inbox = process.open_job(job)
        try:
            models = {"model": model.model_dump(mode="json"), "vae": vae.model_dump(mode="json") if vae else None}
            process.send("decode", {"job": job, "index": index, **models}, (latents,))
            return _decoded(process, inbox)
        finally:
            process.close_job(job)

    def _attempt(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes) -> Iterator[Event]:
        process, job = self._current(), next(self._numbers)
        was_ready, begun = process.info is not None, False
        answers = _Answers(process, job, cancel)
        try:
            if not was_ready:
                yield Status(message="Starting the worker")
            process.send("run", {"job": job, "resolved": resolved.model_dump(mode="json")}, (kept,))
            for event in answers:
                if isinstance(event, Started):
                    begun = True
                else:
                    yield event
        except WorkerDied as error:
            if was_ready and not begun:
                raise _NeverBegan(error.message) from error
            raise
        finally:
            answers.close()

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        process = self._process
        if self._closed or process is None:
            return EngineInfo(state="stopped")
        if process.gone.is_set():
            error = process.death()
            return EngineInfo(state="failed" if process.info is None else "stopped", message=error.message)
        if process.info is None:
            return EngineInfo(state="starting", message="Starting the worker", pid=process.pid)
        if process.silent_seconds > SILENCE_SECONDS:
            note = f"No sign of life from the worker for {process.silent_seconds:.0f} s. Interrupt ends it."
            return process.info.model_copy(update={"message": note})
        if process.info.state in ("ready", "busy"):  # what it said may be a second old
            return process.info.model_copy(update={"state": "busy" if process.has_jobs else "ready"})
        return process.info

    def close(self) -> None:
        """End the worker: asked first, then by force. Idempotent."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.stop()

    def _current(self) -> WorkerProcess:
        """A living worker. Raises `EngineError` after `close`, or when none can be spawned."""
        with self._lock:
            if self._closed:
                raise EngineError("The painting engine is closed.")
            if self._process is None or self._process.gone.is_set():
                try:
                    self._process = WorkerProcess(self._command, self._log_file, self._replace)
                except OSError as error:
                    raise EngineError(f"The worker process cannot be started: {error}.") from error
            return self._process

    def _replace(self, dead: WorkerProcess) -> None:
        """After a death, warm a new one up for the next job, unless this one died young: the same would happen again."""
        if dead.ready_seconds < YOUNG_SECONDS:
            return
        with self._lock:
            wanted = not self._closed and self._process is dead
        if wanted:
            with contextlib.suppress(StudioError):  # the next job tries again and reports it
                self._current()


def _decoded(process: WorkerProcess, inbox: queue.SimpleQueue[Message]) -> bytes:
    """The picture that arrives in `inbox`. Raises the worker's error, or its death."""
    deadline = time.monotonic() + DECODE_SECONDS
    while time.monotonic() < deadline:
        gone = process.gone.is_set()  # asked before looking: all that it sent has arrived by then
        try:
            message = inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if gone:
                raise process.death() from None
            continue
        if message.kind == "error":
            raise from_dict(message.body["error"])
        return message.blobs[0]
    raise EngineError(
        f"The worker has not come to decoding this step within {DECODE_SECONDS:.0f} s: it is busy with something else. Try again later."
    )


class _NeverBegan(WorkerDied):
    """The process ended between two jobs: the second one has not harmed it and can be tried again."""


class _Answers:
    """The events of one job as they come, while cancels are passed on.

    Iterating raises the error that the worker sends, and `WorkerDied` (or why it could not start) when nothing more can
    come. A job that is interrupted before the worker is ready ends at once.
    """

    def __init__(self, process: WorkerProcess, job: int, cancel: CancelToken) -> None:
        self._process = process
        self._body = {"job": job}
        self._cancel = cancel
        self._inbox = process.open_job(job)
        self._interrupted = False
        self._done = False

    def __iter__(self) -> Iterator[Event]:
        while not self._done:
            self._pass_cancel_on()
            if self._interrupted and self._process.info is None:
                yield Cancelled()
                return
            message = self._next()
            if message is None:
                continue
            if message.kind == "event":
                yield unpack_event(message.body["event"], message.blobs)
                continue
            self._done = True
            if message.kind == "error":
                raise from_dict(message.body["error"])

    def close(self) -> None:
        """Stop listening. A job that is not done is interrupted, so that it does not hold up the next one."""
        if not self._done:
            self._process.send("interrupt", self._body)
        self._process.close_job(self._body["job"])

    def _next(self) -> Message | None:
        gone = self._process.gone.is_set()  # asked before looking: all that it sent has arrived by then
        try:
            return self._inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if gone:
                raise self._process.death() from None
            return None

    def _pass_cancel_on(self) -> None:
        mode = self._cancel.mode
        if mode == "skip":
            self._cancel.clear_skip()
            self._process.send("skip", self._body)
        elif mode == "interrupt" and not self._interrupted:
            self._interrupted = True
            self._process.send("interrupt", self._body)
        if self._interrupted and self._process.silent_seconds > SILENCE_SECONDS:
            self._process.kill()
