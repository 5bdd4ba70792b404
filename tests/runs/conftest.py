"""Managers over a temporary data folder; what they started is ended with the test."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.paths import Paths
from studio.runs import RunManager
from studio.schema.runs import RunRecord, RunState
from studio.settings import Settings
from tests.runs.pretend import trainer

Make = Callable[..., RunManager]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Build and start a manager of the test's folder, as a server that starts does; `settings` are settings."""
    made: list[RunManager] = []

    def build(seconds: float = 0.02, how: str = "", start: bool = True, **settings: Any) -> RunManager:
        manager = RunManager(
            Paths(tmp_path), lambda: Settings(**settings), painting_device=lambda: "cpu", command=trainer(seconds, how)
        )
        made.append(manager)
        if start:
            manager.start(lambda: None)
        return manager

    yield build
    for manager in made:
        manager.close()
        for process in manager._processes.values():
            process.kill()
            process.wait(10)
    for child in psutil.Process().children(recursive=True):  # what a manager that was closed had adopted
        with contextlib.suppress(psutil.Error):
            if str(tmp_path) in " ".join(child.cmdline()):
                child.kill()


def until(manager: RunManager, run_id: str, *states: RunState, timeout: float = 20) -> RunRecord:
    """Wait until the run is in one of `states`."""
    deadline = time.monotonic() + timeout
    while (record := manager.run(run_id)).state not in states:
        assert time.monotonic() < deadline, record
        time.sleep(0.02)
    return record


def reaches(manager: RunManager, run_id: str, step: int) -> RunRecord:
    """Wait until it has done `step` steps."""
    deadline = time.monotonic() + 20
    while (record := manager.run(run_id)).summary.step < step:
        assert time.monotonic() < deadline, record
        time.sleep(0.02)
    return record
