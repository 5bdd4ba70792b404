"""A job through the engine, cell by cell where it is a plot: the engine knows pictures and batches only."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from studio.schema.engine import CancelToken, Engine
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started
from studio.schema.resolved import ResolvedRequest


def painted(
    engine: Engine, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b""
) -> Generator[Event, None, None]:
    """The events of one job, as of `Engine.run`. Those of a plot count its cells as batches of one picture, in reading order.

    Raises what the engine raises; pictures that came before stay.
    """
    if resolved.plot is None:
        yield from _closing(engine.run(resolved, cancel, kept))
        return
    yield Started()
    images, seconds, count = 0, 0.0, len(resolved.plot.cells)
    for index, cell in enumerate(resolved.plot.cells):
        for event in _closing(engine.run(cell, cancel, kept)):
            if isinstance(event, Finished):
                images, seconds = images + event.images, seconds + event.seconds
            elif isinstance(event, Progress):
                yield event.model_copy(update={"batch": index, "batches": count, "seconds": seconds + event.seconds})
            elif isinstance(event, ImageReady):
                yield event.model_copy(update={"index": index})
            elif not isinstance(event, Started | Cancelled):
                yield event
        if cancel.mode == "interrupt":
            break
    interrupted = cancel.mode == "interrupt" and images < count
    yield (
        Cancelled() if interrupted and not images else Finished(images=images, seconds=seconds, interrupted=interrupted)
    )


def _closing(events: Iterator[Event]) -> Iterator[Event]:
    """The same events; what makes them is closed when nobody wants more."""
    try:
        yield from events
    finally:
        if isinstance(events, Generator):
            events.close()
