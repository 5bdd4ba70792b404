"""Painting and training take turns: a fake engine against a real training process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from studio.engine.fake import FakeEngine
from studio.runs import RunManager
from studio.runs import gate as gate_module
from studio.runs.gate import ConsiderateEngine
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Status
from studio.schema.resolved import ResolvedRequest
from studio.training.runs import RunFolder
from tests.runs.conftest import Make, reaches, until
from tests.runs.pretend import configuration


class Painting(FakeEngine):
    """Notes what the run did while it painted: its first and its last step then."""

    def __init__(self, manager: RunManager, run_id: str, seconds: float = 0.4) -> None:
        super().__init__()
        self.manager, self.run_id, self.seconds = manager, run_id, seconds
        self.seen: tuple[int, int] | None = None

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        first = self.manager.run(self.run_id).summary.step
        time.sleep(self.seconds)
        self.seen = first, self.manager.run(self.run_id).summary.step
        yield Status(message="painted")


NOTHING = cast(Any, None)


def paint(manager: RunManager, engine: FakeEngine, cancel: CancelToken | None = None) -> list[str]:
    """Words said while a picture is painted by way of the gate."""
    events = ConsiderateEngine(engine, manager.gate).run(NOTHING, cancel or CancelToken())
    return [event.message for event in events if isinstance(event, Status)]


def training(manager: RunManager, data: Path, steps: int = 4000) -> str:
    run_id = manager.create(configuration(data, steps=steps)).id
    reaches(manager, run_id, 2)
    return run_id


def test_picture_first_pauses_the_run_and_lets_it_go_on(make: Make, data: Path) -> None:
    manager = make()
    run_id = training(manager, data)
    engine = Painting(manager, run_id)
    said = paint(manager, engine)
    assert said == [f"{run_id} pauses for this picture", "painted"]
    assert engine.seen is not None
    assert engine.seen[0] == engine.seen[1]
    paused = manager.run(run_id)
    assert (paused.state, paused.paused_for_painting) == ("paused", True)
    assert paint(manager, engine) == ["painted"]  # the next picture of a queue finds it still paused
    until(manager, run_id, "running")
    reaches(manager, run_id, engine.seen[1] + 1)


def test_a_pause_of_the_user_outlasts_a_picture(make: Make, data: Path) -> None:
    manager = make()
    run_id = training(manager, data)
    manager.pause(run_id)
    until(manager, run_id, "paused")
    assert paint(manager, Painting(manager, run_id, 0.0)) == ["painted"]
    time.sleep(gate_module.RELEASE_SECONDS + 0.6)
    assert manager.run(run_id).state == "paused"
    assert not manager.run(run_id).paused_for_painting


def test_training_first_lets_the_picture_wait(make: Make, data: Path) -> None:
    manager = make(training_and_painting="training first")
    run_id = training(manager, data, steps=40)
    engine = Painting(manager, run_id, 0.0)
    assert paint(manager, engine) == [f"waiting for the training of {run_id}", "painted"]
    assert engine.seen == (40, 40)


def test_a_cancelled_picture_waits_no_longer(make: Make, data: Path) -> None:
    manager = make(training_and_painting="training first")
    run_id = training(manager, data)
    cancel = CancelToken()
    threading.Timer(0.3, cancel.interrupt).start()
    began = time.monotonic()
    paint(manager, Painting(manager, run_id, 0.0), cancel)
    assert time.monotonic() - began < 5
    assert manager.run(run_id).state == "running"


def test_together_nobody_waits(make: Make, data: Path) -> None:
    manager = make(training_and_painting="together")
    run_id = training(manager, data)
    engine = Painting(manager, run_id)
    assert paint(manager, engine) == ["painted"]
    assert engine.seen is not None
    assert engine.seen[1] > engine.seen[0]


def test_on_another_device_nobody_waits(make: Make, data: Path) -> None:
    manager = make()
    manager._painting_device = lambda: "cuda:0"
    run_id = manager.create(type(configuration(data)).model_validate({"name": "j", "method": {"kind": "judge"}})).id
    reaches_anything(manager, run_id)
    assert paint(manager, Painting(manager, run_id, 0.0)) == ["painted"]


def reaches_anything(manager: RunManager, run_id: str) -> None:
    """The pretended trainer knows no judge and fails; that it was started is enough."""
    until(manager, run_id, "running", "failed", "interrupted")


def test_a_run_that_does_not_listen_is_not_waited_for_long(
    make: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "PAUSE_PATIENCE", 0.3)
    manager = make(seconds=30)
    run_id = manager.create(configuration(data)).id
    until(manager, run_id, "running")
    began = time.monotonic()
    assert paint(manager, Painting(manager, run_id, 0.0))[-1] == "painted"
    assert 0.3 <= time.monotonic() - began < 5


def test_no_run_starts_while_a_picture_is_painted_first(make: Make, data: Path) -> None:
    manager = make()
    entered = list(manager.gate.enter(CancelToken()))
    run_id = manager.create(configuration(data)).id
    time.sleep(0.4)
    assert (entered, manager.run(run_id).state) == ([], "queued")
    manager.gate.leave()
    until(manager, run_id, "running", "finished")


def test_a_server_that_ends_or_was_killed_leaves_no_run_paused_for_it(make: Make, data: Path) -> None:
    manager = make()
    run_id = training(manager, data)
    folder = RunFolder(data.parent / "outputs" / "runs" / run_id)
    list(manager.gate.enter(CancelToken()))
    assert folder.why_asked("pause") == "painting"
    manager.close()
    assert not folder.asked("pause")
    folder.ask("pause", "painting")  # what a killed server leaves
    other = make()
    until(other, run_id, "running")
    reaches(other, run_id, other.run(run_id).summary.step + 1)
