"""Sketches: the newest of a client wins, jobs go first, and nothing of them is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from studio.engine.fake import FakeEngine
from studio.errors import OutOfMemory, QueueFull
from studio.jobs import JobQueue, Sketch
from studio.paths import Paths
from studio.schema.engine import CancelToken
from studio.schema.events import TERMINAL, Cancelled, Event, Failed, Finished, ImageReady, Progress, Queued, Started
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import ResolvedRequest
from tests.jobs.conftest import prepare

Small = Callable[..., GenerationRequest]
QueueMaker = Callable[..., JobQueue]
OPTIONS = RunOptions(save=False)


class Gated(FakeEngine):
    """Begins no step before `step` lets it; `runs` says what was begun. `starts` counts the runs."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        self.starts.release()
        for event in super().run(resolved, cancel, kept):
            if isinstance(event, Started):
                self.steps.acquire(timeout=10)
            yield event
            if isinstance(event, Progress):
                self.steps.acquire(timeout=10)

    def go(self) -> None:
        """Let all steps pass from now on."""
        self.steps.release(10_000)


class Listener:
    """Asks for sketches and hears of them."""

    def __init__(self, queue: JobQueue, small: Small, client: str = "me") -> None:
        self.queue, self.small, self.client = queue, small, client
        self.heard: dict[int, list[Event]] = {}
        self._sketches: dict[int, Sketch] = {}
        self._news = threading.Event()

    def ask(self, number: int, prompt: str = "a fox", **fields: object) -> Sketch:
        resolved = prepare(self.small(prompt, **fields), OPTIONS)
        sketch = self._sketches[number] = Sketch(self.client, number, resolved, self._news.set)
        self.heard[number] = []
        self.queue.sketches.put(sketch)
        return sketch

    def until(self, number: int, *kinds: type) -> list[Event]:
        """What was told of a sketch, once it was told one of `kinds`."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self._news.clear()
            self.heard[number] += self._sketches[number].told()
            if any(isinstance(event, kinds) for event in self.heard[number]):
                return self.heard[number]
            self._news.wait(0.1)
        raise AssertionError(f"sketch {number} was told only {self.heard[number]}")

    def end(self, number: int) -> list[Event]:
        return self.until(number, *TERMINAL)


def types(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_a_sketch_is_told_with_its_picture_and_leaves_nothing(
    make_queue: QueueMaker, small: Small, paths: Paths
) -> None:
    queue = make_queue()
    mine = Listener(queue, small)
    mine.ask(1)
    events = mine.end(1)
    assert types(events) == [Queued, Started, Progress, Progress, Progress, ImageReady, Finished]
    assert isinstance(events[2], Progress)
    assert events[2].previews[0][:2] == b"\xff\xd8"
    assert isinstance(events[5], ImageReady)
    assert events[5].png[:4] == b"\x89PNG"
    assert (queue.jobs(), queue.images(), queue.events.last_seq) == ([], [], 0)
    assert [path for path in paths.outputs.rglob("*") if path.is_file() and path.parent != paths.state] == []


def test_a_newer_one_stops_the_older_within_a_step(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    mine = Listener(make_queue(engine), small)
    mine.ask(1, "one")
    mine.until(1, Started)
    engine.steps.release()
    mine.until(1, Progress)
    mine.ask(2, "two")
    assert isinstance(mine.end(1)[-1], Cancelled), "it is told at once, not after the step"
    engine.go()
    assert types(mine.end(2))[-2:] == [ImageReady, Finished]
    assert types(mine.end(1)).count(Progress) == 1
    assert [run.positive.text for run in engine.runs] == ["one", "two"]


def test_one_waits_at_most_and_the_older_is_never_begun(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine)
    mine = Listener(queue, small)
    mine.ask(1, "one")
    mine.until(1, Started)
    for number, prompt in ((2, "two"), (3, "three"), (4, "four")):
        mine.ask(number, prompt)
        assert queue.sketches.waiting == 1
    engine.go()
    assert isinstance(mine.end(4)[-1], Finished)
    assert [type(mine.end(number)[-1]) for number in (1, 2, 3)] == [Cancelled] * 3
    assert [run.positive.text for run in engine.runs] == ["one", "four"]


def test_a_late_order_does_not_take_the_place_of_a_newer(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    mine = Listener(make_queue(engine), small)
    mine.ask(5, "five")
    mine.until(5, Started)
    mine.ask(4, "four")
    assert types(mine.end(4)) == [Cancelled]
    mine.ask(7, "seven")
    mine.ask(6, "six")
    assert types(mine.end(6)) == [Cancelled]
    engine.go()
    assert isinstance(mine.end(7)[-1], Finished)
    assert [run.positive.text for run in engine.runs] == ["five", "seven"]


def test_clients_take_turns_and_keep_their_places(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine, max_queue=2)
    mine, other, third = (Listener(queue, small, name) for name in ("me", "other", "third"))
    mine.ask(1, "mine")
    mine.until(1, Started)
    other.ask(1, "other")
    mine.ask(2, "mine again")
    other.ask(2, "other again")
    with pytest.raises(QueueFull, match="2 live pictures wait"):
        third.ask(1, "third")
    engine.go()
    other.end(2)
    mine.end(2)
    assert [run.positive.text for run in engine.runs] == ["mine", "other again", "mine again"]


def test_a_job_goes_first_and_the_sketch_is_painted_after_it(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine)
    mine = Listener(queue, small)
    mine.ask(1, "sketch")
    mine.until(1, Started)
    job = queue.submit(small("job"), RunOptions(), "ui")
    engine.steps.release(2)
    engine.starts.acquire(timeout=10)
    assert engine.starts.acquire(timeout=10), "the sketch made way"
    mine.ask(2, "newer")
    engine.go()
    assert queue.wait(job.id, 10).status == "done"
    assert isinstance(mine.end(2)[-1], Finished)
    assert [run.positive.text for run in engine.runs] == ["sketch", "job", "newer"]


def test_one_that_made_way_waits_again_if_it_is_still_the_newest(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine)
    mine = Listener(queue, small)
    mine.ask(1, "sketch")
    mine.until(1, Started)
    queue.submit(small("job"), RunOptions(), "ui")
    engine.go()
    assert [kind for kind in types(mine.end(1)) if kind is not Progress] == [
        Queued,
        Started,
        Queued,
        Started,
        ImageReady,
        Finished,
    ]
    assert [run.positive.text for run in engine.runs] == ["sketch", "job", "sketch"]


def test_waits_while_jobs_wait(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(engine := FakeEngine(), start=False)
    mine = Listener(queue, small)
    mine.ask(1, "sketch")
    for name in ("one", "two"):
        queue.submit(small(name), RunOptions(), "ui")
    queue.start()
    mine.end(1)
    assert [run.positive.text for run in engine.runs] == ["one", "two", "sketch"]


def test_one_that_nobody_wants_is_stopped_or_never_begun(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine)
    mine, other, third = (Listener(queue, small, name) for name in ("me", "other", "third"))
    first, second = mine.ask(1, "painted"), None
    mine.until(1, Started)
    second = other.ask(1, "waits")
    third.ask(1, "last")
    for sketch in (first, second):
        queue.sketches.drop(sketch)
    engine.go()
    third.end(1)
    queue.sketches.drop(first)
    assert [run.positive.text for run in engine.runs] == ["painted", "last"]
    assert ImageReady not in types(mine.end(1))


def test_a_failure_is_told_and_the_next_is_painted(
    make_queue: QueueMaker, small: Small, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(fail_with=OutOfMemory("too large"))
    mine = Listener(make_queue(engine), small)
    mine.ask(1)
    ending = mine.end(1)[-1]
    assert isinstance(ending, Failed)
    assert ending.error["message"] == "too large"
    engine.fail_with = RuntimeError("secret detail")
    mine.ask(2)
    ending = mine.end(2)[-1]
    assert isinstance(ending, Failed)
    assert "secret" not in ending.error["message"]
    assert "secret detail" in caplog.text
    engine.fail_with = None
    mine.ask(3)
    assert isinstance(mine.end(3)[-1], Finished)


def test_closing_ends_them_all(make_queue: QueueMaker, small: Small) -> None:
    engine = Gated()
    queue = make_queue(engine)
    mine, other = Listener(queue, small), Listener(queue, small, "other")
    mine.ask(1)
    mine.until(1, Started)
    other.ask(1)
    queue.sketches.close()
    assert [type(each.end(1)[-1]) for each in (mine, other)] == [Cancelled, Cancelled]
    mine.ask(2)
    assert types(mine.end(2)) == [Cancelled]
    engine.go()
