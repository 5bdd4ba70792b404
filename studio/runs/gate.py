"""Painting and training on the same device take turns.

`ConsiderateEngine` asks the gate before it paints and tells it when it has painted. How they take turns is a setting:
"picture first" lets the runs pause at a step edge, "training first" lets the picture wait, "together" does neither.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from studio.runs.folder import PAINTING, RunView
from studio.schema.engine import CancelToken, Engine, EngineInfo
from studio.schema.events import Event, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

Turns = Literal["picture first", "training first", "together"]
POLL_SECONDS = 0.05
PAUSE_PATIENCE = 30.0
"""Seconds a picture waits for runs to pause: one that is still reading its data set comes to no step edge."""
RELEASE_SECONDS = 1.0
"""How long after a picture runs go on: the next job of a queue then finds them still paused."""


class PaintingGate:
    """Who has the turn. `rivals()` are the views of runs on the painting device that are active, freshly read."""

    def __init__(self, turns: Callable[[], Turns], rivals: Callable[[], list[RunView]]) -> None:
        self._turns = turns
        self._rivals = rivals
        self._lock = threading.Lock()
        self._painting = 0
        self._left = 0.0

    @property
    def holds_back(self) -> bool:
        """Whether no run is to start now, because a picture is painted first."""
        return self._painting > 0 and self._turns() == "picture first"

    def enter(self, cancel: CancelToken) -> Iterator[str]:
        """Wait for the turn to paint; yields what is waited for, once each. A job that is cancelled waits no longer."""
        with self._lock:
            self._painting += 1
        turns = self._turns()
        if turns == "training first":
            yield from self._wait(cancel, self._names_of_trainers, "waiting for the training of {}", None)
        elif turns == "picture first":
            for view in self._rivals():
                if "pause" in view.obeys and (not view.folder.asked("pause") or view.folder.abandoned("pause")):
                    view.folder.ask("pause", PAINTING, until_gone=os.getpid())
            yield from self._wait(cancel, self._names_of_pausing, "{} pauses for this picture", PAUSE_PATIENCE)

    def leave(self) -> None:
        """The picture is done, or was given up."""
        with self._lock:
            self._painting -= 1
            self._left = time.monotonic()

    def release(self, views: list[RunView], *, now: bool = False) -> None:
        """Let runs that paused for painting go on, once no picture is being painted any more (`now`: at once)."""
        with self._lock:
            if not now and (self._painting or time.monotonic() - self._left < RELEASE_SECONDS):
                return
            for view in views:
                if view.folder.why_asked("pause") == PAINTING:
                    view.folder.withdraw("pause")

    def _names_of_trainers(self) -> list[str]:
        return [view.folder.id for view in self._rivals() if not view.summary.paused]

    def _names_of_pausing(self) -> list[str]:
        return [view.folder.id for view in self._rivals() if not view.summary.paused and "pause" in view.obeys]

    def _wait(
        self, cancel: CancelToken, waited_for: Callable[[], list[str]], words: str, patience: float | None
    ) -> Iterator[str]:
        said, began = "", time.monotonic()
        while (names := waited_for()) and cancel.mode != "interrupt":
            if patience is not None and time.monotonic() - began > patience:
                return
            if (text := words.format(", ".join(names))) != said:
                said = text
                yield text
            time.sleep(POLL_SECONDS)


class ConsiderateEngine:
    """An `Engine` that lets the gate decide when it paints."""

    def __init__(self, engine: Engine, gate: PaintingGate) -> None:
        self._engine = engine
        self._gate = gate

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        """See `Engine.run`."""
        try:
            for words in self._gate.enter(cancel):
                yield Status(message=words)
            yield from self._engine.run(resolved, cancel, kept)
        finally:
            self._gate.leave()

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """See `Engine.decode`; one picture of a step waits for nobody."""
        return self._engine.decode(model, vae, latents, index)

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        return self._engine.info()

    def start(self, model: ModelInfo | None = None) -> None:
        """See `Engine.start`."""
        self._engine.start(model)

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()
