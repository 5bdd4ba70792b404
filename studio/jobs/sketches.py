"""`SketchLane`: pictures for the moment, painted while somebody types.

A sketch is no job. It has no row, no file and no place in the history: it is told to the one who asked for it, and then it
is gone. Each client has at most one that is painted and one that waits; a newer one takes the place of both at once. Jobs go
first: a sketch is painted only while no job waits or runs, and one that is being painted stops within a step for a job, waits
behind it and is painted again.

Everything happens under the lock of the queue, and nothing is told of a sketch that has ended. So nobody who asked for a newer
one is shown an older one.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator

from studio.errors import EngineError, QueueFull, StudioError
from studio.schema.engine import CancelToken, Engine
from studio.schema.events import TERMINAL, Cancelled, Event, Failed, Queued, Started
from studio.schema.resolved import ResolvedRequest

log = logging.getLogger(__name__)


class Sketch:
    """One order. `client` says whose it is; of two of the same client that with the larger `number` is newer.

    Args:
        wake: called whenever `told` has something new, from any thread; must return at once and not raise.
    """

    def __init__(self, client: str, number: int, resolved: ResolvedRequest, wake: Callable[[], None]) -> None:
        self.client = client
        self.number = number
        self.resolved = resolved
        self.cancel = CancelToken()
        self.ended = False
        self._wake = wake
        self._events: deque[Event] = deque()

    def tell(self, event: Event) -> None:
        """Keep `event` for `told`; nothing comes after an ending. Called under the lane's lock."""
        if not self.ended:
            self.ended = isinstance(event, TERMINAL)
            self._events.append(event)
            self._wake()

    def told(self) -> list[Event]:
        """What is new since the last call, pictures as bytes: `Queued`, `Started`, what the engine says, and an ending as the last.

        It ends `Cancelled` when a newer one took its place. One that makes way for a job is `Queued` and `Started` again.
        """
        events = []
        while self._events:
            events.append(self._events.popleft())
        return events


class SketchLane:
    """Sketches that wait, in the order their clients came, and the one being painted. Callable from any thread.

    Args:
        changed: the queue's lock, notified when there is something to do.
        engine: paints, on the thread that calls `paint`.
        kept: the latents that a branch begins with, see `Engine.run`.
        most: how many clients may wait.
    """

    def __init__(
        self, changed: threading.Condition, engine: Engine, kept: Callable[[ResolvedRequest], bytes], most: int
    ) -> None:
        self._changed = changed
        self._engine = engine
        self._kept = kept
        self._most = most
        self._waiting: OrderedDict[str, Sketch] = OrderedDict()
        self._painted: Sketch | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many sketches wait."""
        return len(self._waiting)

    def put(self, sketch: Sketch) -> None:
        """Let `sketch` take the place of what its client has here; one that is older than that ends at once.

        Raises `QueueFull` when too many clients wait.
        """
        with self._changed:
            waits, painted = self._waiting.get(sketch.client), self._painted
            older = [each for each in (waits, painted) if each is not None and each.client == sketch.client]
            if self._closed or any(each.number >= sketch.number for each in older):
                sketch.tell(Cancelled())
                return
            if waits is None and len(self._waiting) >= self._most:
                raise QueueFull(f"{len(self._waiting)} live pictures wait, and no more than {self._most} may.")
            for each in older:
                _stop(each)
            self._wait(sketch)
            self._changed.notify_all()

    def drop(self, sketch: Sketch) -> None:
        """Nobody wants it any more. Does nothing for one that has ended."""
        with self._changed:
            if self._waiting.get(sketch.client) is sketch:
                del self._waiting[sketch.client]
            _stop(sketch)

    def make_way(self) -> None:
        """A job has come: the sketch being painted stops within a step, and waits."""
        with self._changed:
            if self._painted is not None:
                self._painted.cancel.interrupt()

    def close(self) -> None:
        """End all, now and from now on. Idempotent."""
        with self._changed:
            self._closed = True
            for sketch in (*self._waiting.values(), *([self._painted] if self._painted else ())):
                _stop(sketch)
            self._waiting.clear()

    def take(self) -> Sketch | None:
        """The next one to be painted, now its caller's; None when none waits."""
        with self._changed:
            self._painted = self._waiting.popitem(last=False)[1] if self._waiting else None
            return self._painted

    def paint(self, sketch: Sketch) -> None:
        """Paint what `take` gave and tell its client; one that had to make way waits again, before all others. Never raises."""
        try:
            ending = self._run(sketch)
        except StudioError as error:
            ending = Failed(error=error.to_dict())
        except Exception:
            log.exception("a live picture failed")
            ending = Failed(error=EngineError("The live picture could not be painted; the log says why.").to_dict())
        with self._changed:
            self._painted = None
            if isinstance(ending, Cancelled) and not sketch.ended:
                sketch.cancel = CancelToken()
                self._wait(sketch, first=True)
            else:
                sketch.tell(ending)

    def _run(self, sketch: Sketch) -> Event:
        with self._changed:
            sketch.tell(Started())
        painting = self._engine.run(sketch.resolved, sketch.cancel, self._kept(sketch.resolved))
        try:
            for event in painting:
                if isinstance(event, TERMINAL):
                    return event
                if not isinstance(event, (Queued, Started)):  # these are ours to say
                    with self._changed:
                        sketch.tell(event)
        finally:
            if isinstance(painting, Generator):
                painting.close()
        raise EngineError("The engine stopped without saying how the live picture ended.")

    def _wait(self, sketch: Sketch, *, first: bool = False) -> None:
        self._waiting[sketch.client] = sketch  # in the place of the one it replaces
        if first:
            self._waiting.move_to_end(sketch.client, last=False)
        sketch.tell(Queued(position=1 + list(self._waiting).index(sketch.client)))


def _stop(sketch: Sketch) -> None:
    sketch.cancel.interrupt()
    sketch.tell(Cancelled())
