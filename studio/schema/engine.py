"""The one seam between deciding and painting: `Engine`, with `CancelToken` going in and events coming out.

`DiffusersEngine` does the work, `WorkerEngine` runs one in a subprocess, `FakeEngine` tests everything above.
It is defined with the words, not in `engine/`, because the queue and the composition root speak it too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from studio.schema.events import Event
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

CancelMode = Literal["none", "skip", "interrupt"]


class CancelToken:
    """Set from any thread, polled by the engine at least once per step, and more often while pictures are coded or enlarged.

    `skip` leaves the batch that is being painted and goes on with the next one; the engine calls `clear_skip` when it
    has obeyed. `interrupt` ends the job within one step, or when the checkpoint that is being loaded is there; finished
    pictures stay. An interrupt is never undone by a skip.
    """

    def __init__(self) -> None:
        self._interrupt = threading.Event()
        self._skip = threading.Event()

    @property
    def mode(self) -> CancelMode:
        """What is asked for at this moment."""
        if self._interrupt.is_set():
            return "interrupt"
        return "skip" if self._skip.is_set() else "none"

    def skip(self) -> None:
        """Leave the current batch."""
        self._skip.set()

    def interrupt(self) -> None:
        """End the job."""
        self._interrupt.set()

    def clear_skip(self) -> None:
        """The engine has left the batch."""
        self._skip.clear()


class EngineInfo(BaseModel):
    """How the painting process is, for the status line of the page and for REST."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["starting", "ready", "busy", "stopped", "failed"]
    message: str = ""
    device: str = ""
    dtype: str = ""
    attention: str = ""
    torch: str = ""
    model: str | None = None
    memory: int = 0
    """Resident bytes of the process (CPU) or allocated bytes of the device (CUDA)."""
    pid: int | None = None


class Engine(Protocol):
    """Paints. One job at a time; `run` is called from one thread."""

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        """Yield `Status`, `Progress` and `ImageReady` as they come, then exactly one `Finished` or `Cancelled`.

        `kept` are the `Progress.latents` of the step that a branch begins at, when they are still there. Without them, or
        when they are of another backend, the steps of the origin are painted first; the picture is the same.
        Raises `StudioError` for anything that went wrong (the queue turns it into `Failed`); after an error the engine
        accepts the next job. Closing the iterator stops the job.
        """
        ...

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """The predicted picture of one step as a PNG without text, decoded by the VAE (None: the checkpoint's own).

        `latents` are `Progress.latents`, `index` is the picture's place in its batch. It waits for its turn: between two steps
        when the running job uses the same checkpoint, else until that job is done.
        Raises `InvalidRequest` for an index outside of the batch, `EngineError` between two steps when only the other checkpoint of
        a refined picture is in memory, and what `run` raises.
        """
        ...

    def info(self) -> EngineInfo:
        """Current state; cheap, callable from any thread."""
        ...

    def start(self, model: ModelInfo | None = None) -> None:
        """Begin warming up in the background, loading `model` ahead; returns at once. `run` works without it, only later."""
        ...

    def close(self) -> None:
        """Release the device and end all processes. Idempotent."""
        ...
