"""The real worker: torch in another process, tiny models, real signals. One process serves all tests but those that kill it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.runner import DiffusersEngine
from studio.engine.worker_client import WorkerEngine
from studio.errors import IncompatibleFile, UnknownName, WorkerDied
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, ImageReady, Progress, Status
from studio.schema.request import RunOptions
from studio.schema.resolved import BranchPlan
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_info, tiny_lora

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker") / "worker.log"


@pytest.fixture(scope="module")
def engine(log_file: Path) -> Iterator[WorkerEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        copies = (log_file.parent / "converted", 10**9)
        worker = WorkerEngine("cpu", precision="fp32", copies=copies, log_file=log_file)
        worker.start(tiny_info("sd1"))
        yield worker
        worker.close()


def run(engine: WorkerEngine | DiffusersEngine, **changes: object) -> list[Event]:
    return list(engine.run(resolved_request(tiny_info("sd1"), **changes), CancelToken()))


def picture(events: list[Event]) -> np.ndarray:  # type: ignore[type-arg]
    (found,) = (event for event in events if isinstance(event, ImageReady))
    return np.asarray(Image.open(io.BytesIO(found.png))).astype(int)


def kill_at(engine: WorkerEngine, family: str, sign: signal.Signals, when: Callable[[Event], bool]) -> None:
    """Run a long job and send `sign` to the worker at the event that `when` picks."""
    for event in engine.run(resolved_request(tiny_info(family), steps=150), CancelToken()):
        if when(event):
            pid = engine.info().pid
            assert pid is not None
            os.kill(pid, sign)


def test_paints_what_the_engine_paints_in_process(engine: WorkerEngine, log_file: Path) -> None:
    events = run(engine, sampler="Euler a")
    assert (
        np.abs(picture(events) - picture(run(DiffusersEngine("cpu", precision="fp32"), sampler="Euler a"))).max() <= 1
    )
    assert len(list((log_file.parent / "converted").glob("*.weights"))) == 1
    again = run(engine, sampler="Euler a")
    assert [event.png for event in again if isinstance(event, ImageReady)] == [
        event.png for event in events if isinstance(event, ImageReady)
    ]
    info = engine.info()
    assert (info.state, info.device, info.dtype, info.torch, info.model) == (
        "ready",
        "cpu",
        "float32",
        torch.__version__,
        "sd1-folder",
    )
    assert info.memory > 50 * 2**20
    assert info.pid != os.getpid()


def test_errors_cross_the_pipe_with_their_class(engine: WorkerEngine) -> None:
    with pytest.raises(UnknownName, match="Euler b") as caught:
        run(engine, sampler="Euler b")
    assert "Euler" in caught.value.choices
    with pytest.raises(IncompatibleFile):
        list(
            engine.run(
                resolved_request(tiny_info("sd1").model_copy(update={"path": str(tiny_lora("sd1")), "layout": "file"})),
                CancelToken(),
            )
        )
    assert picture(run(engine)).shape == (64, 64, 3)


def test_interrupt_is_heard_in_the_middle_of_a_job(engine: WorkerEngine) -> None:
    cancel, steps, pressed = CancelToken(), [], 0.0
    for event in engine.run(resolved_request(tiny_info("sd1"), steps=150), cancel):
        if isinstance(event, Progress):
            steps.append(event.step)
            if event.step == 3:
                cancel.interrupt()
                pressed = time.monotonic()
    assert isinstance(event, Cancelled)
    assert steps[-1] < 50
    assert time.monotonic() - pressed < 2.0
    assert picture(run(engine)).shape == (64, 64, 3)


def test_a_worker_killed_while_it_paints_or_loads_costs_one_job_each(engine: WorkerEngine, log_file: Path) -> None:
    first = engine.info().pid
    with pytest.raises(WorkerDied, match=r"killed by SIGBUS.*model file"):
        kill_at(engine, "sd1", signal.SIGBUS, lambda event: isinstance(event, Progress) and event.step == 2)
    assert "Bus error" in log_file.read_text()
    with pytest.raises(WorkerDied, match=r"killed by SIGKILL.*memory"):
        kill_at(engine, "sdxl", signal.SIGKILL, lambda event: isinstance(event, Status) and "Loading" in event.message)
    assert engine.info().pid != first
    assert picture(run(engine)).shape == (64, 64, 3)


def test_steps_and_branches_cross_the_pipe(engine: WorkerEngine) -> None:
    """Latents out, latents in: the branch from kept ones is the one that is painted, and a step decodes to what it was."""
    info = tiny_info("sd1")
    origin = resolved_request(info, steps=6, options=RunOptions(keep_latents=True))
    steps = [event for event in engine.run(origin, CancelToken()) if isinstance(event, Progress)]
    assert all(step.latents for step in steps)
    asked = resolved_request(info, steps=6, prompt="an owl", branch=BranchPlan(step=3, origin=origin, text="x"))
    anew = list(engine.run(asked, CancelToken()))
    kept = list(engine.run(asked, CancelToken(), steps[2].latents))
    assert (picture(anew) == picture(kept)).all()
    assert [event.step for event in kept if isinstance(event, Progress)] == [4, 5, 6]
    with contextlib.closing(DiffusersEngine("cpu", precision="fp32")) as here:
        assert engine.decode(info, None, steps[0].latents, 0) == here.decode(info, None, steps[0].latents, 0)
