"""A plot through an engine that knows nothing of plots: what is told, in which order, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from studio.engine.fake import FakeEngine
from studio.errors import EngineError
from studio.infotext import write_infotext
from studio.jobs.cells import painted
from studio.resolve import resolve
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started
from studio.schema.request import RunOptions, make_request
from studio.schema.resolved import ResolvedRequest
from tests.infotext.test_round_trip import Library

PLOT = {"x_type": "Seed", "x_values": "5, 6", "y_type": "Steps", "y_values": "2, 3"}


def engine() -> FakeEngine:
    return FakeEngine(infotext=lambda resolved, index: write_infotext(resolved, index, "1"))


def plotted(**options: bool) -> ResolvedRequest:
    request = make_request({"prompt": "a fox", "width": 64, "height": 64, "plot": PLOT})
    return resolve(request, Library(), lambda: 1, options=RunOptions(**options))


def test_cells_are_batches_of_one_picture_in_reading_order() -> None:
    events = list(painted(engine(), plotted(), CancelToken()))
    steps = [(event.batch, event.step, event.total) for event in events if isinstance(event, Progress)]
    assert steps == [(cell, step, total) for cell, total in enumerate((2, 2, 3, 3)) for step in range(1, total + 1)]
    assert {event.batches for event in events if isinstance(event, Progress)} == {4}
    pictures = [event for event in events if isinstance(event, ImageReady)]
    assert [(picture.index, picture.seed) for picture in pictures] == [(0, 5), (1, 6), (2, 5), (3, 6)]
    assert [f"Steps: {steps}" in picture.infotext for picture, steps in zip(pictures, (2, 2, 3, 3), strict=True)] == [
        True
    ] * 4
    assert not any("Script" in picture.infotext for picture in pictures)
    assert isinstance(events[0], Started) and sum(isinstance(event, Started) for event in events) == 1
    assert isinstance(events[-1], Finished) and (events[-1].images, events[-1].interrupted) == (4, False)


def test_seconds_go_on_from_cell_to_cell() -> None:
    slow = FakeEngine(step_seconds=0.01)
    seconds = [event.seconds for event in painted(slow, plotted(), CancelToken()) if isinstance(event, Progress)]
    assert seconds == sorted(seconds) and seconds[-1] >= 0.09


def test_a_single_picture_goes_through_untouched() -> None:
    resolved = resolve(make_request({"width": 64, "height": 64, "steps": 2, "seed": 3}), Library(), lambda: 1)
    events = list(painted(engine(), resolved, CancelToken(), b"kept"))
    assert [event.type for event in events] == [event.type for event in engine().run(resolved, CancelToken())]


@pytest.mark.parametrize("after, images", [(0, 0), (2, 2)])
def test_an_interrupted_plot_keeps_what_is_finished(after: int, images: int) -> None:
    cancel, found = CancelToken(), list[Event]()
    for event in painted(engine(), plotted(), cancel):
        found.append(event)
        if sum(isinstance(one, ImageReady) for one in found) == after:
            cancel.interrupt()
    assert sum(isinstance(event, ImageReady) for event in found) == images
    last = found[-1]
    assert isinstance(last, Finished) and last.interrupted if images else isinstance(last, Cancelled)


def test_a_skipped_cell_is_left_out() -> None:
    cancel, found = CancelToken(), list[Event]()
    for event in painted(engine(), plotted(), cancel):
        found.append(event)
        if isinstance(event, Progress) and (event.batch, event.step) == (1, 1):
            cancel.skip()
    assert [event.index for event in found if isinstance(event, ImageReady)] == [0, 2, 3]
    assert isinstance(found[-1], Finished) and found[-1].images == 3


class Breaks(FakeEngine):
    """Fails at its third run; says whether what it gave was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.given_back = 0

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        try:
            self.fail_with = EngineError("no more") if len(self.runs) == 2 else None
            yield from super().run(resolved, cancel, kept)
        finally:
            self.given_back += 1


def test_a_failure_comes_through_and_everything_is_closed() -> None:
    broken, found = Breaks(), list[Event]()
    with pytest.raises(EngineError, match="no more"):
        found.extend(painted(broken, plotted(), CancelToken()))
    assert (sum(isinstance(event, ImageReady) for event in found), broken.given_back) == (2, 3)
    left = Breaks()
    events = painted(left, plotted(), CancelToken())
    next(event for event in events if isinstance(event, Progress))
    events.close()
    assert left.given_back == 1
