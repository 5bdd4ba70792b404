"""The life of a worker process, with a fake engine in it: real pipes, real signals, no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.engine import worker_client
from studio.engine.worker_client import WorkerEngine
from studio.errors import EngineError, SettingsError, StudioError, WorkerDied
from studio.paths import REPOSITORY
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import BranchPlan, RefinerPlan, ResolvedRequest
from tests.engine.samples import NO_MODEL, resolved_request
from tests.test_hires import asked
from tests.test_resolve import run as resolved_by_name

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
Make = Callable[..., WorkerEngine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    engines: list[WorkerEngine] = []

    def build(step_seconds: float = 0.0, behaviour: str = "") -> WorkerEngine:
        command = [sys.executable, "-m", "tests.engine.fake_worker", str(step_seconds), behaviour]
        engines.append(WorkerEngine(log_file=tmp_path / "logs" / "worker.log", command=command))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def ready_pid(engine: WorkerEngine) -> int:
    engine.start()
    wait_for(lambda: engine.info().state == "ready")
    pid = engine._process
    assert pid is not None
    return pid.pid


def run(engine: WorkerEngine, cancel: CancelToken | None = None, **changes: object) -> list[Event]:
    return list(engine.run(resolved_request(**changes), cancel or CancelToken()))


def run_until_step(engine: WorkerEngine, cancel: CancelToken, act: Callable[[], None]) -> None:
    """Run a long job, `act` once after its first step, and go on to the end."""
    for event in engine.run(resolved_request(steps=150), cancel):
        if isinstance(event, Progress) and event.step == 1:
            act()


def kinds(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def test_a_job_and_its_bytes_come_through(make: Make) -> None:
    events = run(make(), batch_size=2)
    assert kinds(events) == ["started", "status", *["progress"] * 4, "image", "image", "finished"]
    pictures = [event for event in events if isinstance(event, ImageReady)]
    assert all(picture.png.startswith(b"\x89PNG") for picture in pictures)
    assert [len(event.previews) for event in events if isinstance(event, Progress)] == [2] * 4


def test_what_libraries_print_does_not_corrupt_the_stream(make: Make, tmp_path: Path) -> None:
    engine = make(behaviour="noise")
    assert kinds(run(engine))[-1] == "finished"
    engine.close()
    log = (tmp_path / "logs" / "worker.log").read_text()
    assert "a library prints" in log
    assert "so does native code" in log


def test_interrupt_ends_the_job_and_the_next_one_runs(make: Make) -> None:
    engine, cancel = make(step_seconds=0.05), CancelToken()
    seen: list[Event] = []
    pressed = 0.0
    for event in engine.run(resolved_request(steps=150), cancel):
        seen.append(event)
        if isinstance(event, Progress) and event.step == 3:
            pressed = time.monotonic()
            cancel.interrupt()
    assert isinstance(seen[-1], Cancelled)
    assert time.monotonic() - pressed < 1.0
    assert max(event.step for event in seen if isinstance(event, Progress)) <= 8
    assert kinds(run(engine))[-1] == "finished"


def test_skip_leaves_one_batch_only(make: Make) -> None:
    engine, cancel = make(step_seconds=0.03), CancelToken()
    seen = []
    for event in engine.run(resolved_request(steps=30, batch_count=2), cancel):
        seen.append(event)
        if isinstance(event, Progress) and (event.batch, event.step) == (0, 3):
            cancel.skip()
    assert [event.index for event in seen if isinstance(event, ImageReady)] == [1]
    assert seen[-1] == Finished(images=1, seconds=seen[-1].seconds)
    assert cancel.mode == "none"


def test_interrupt_while_the_worker_starts_is_immediate(make: Make) -> None:
    engine, cancel = make(behaviour="slow-start"), CancelToken()
    events = engine.run(resolved_request(), cancel)
    assert isinstance(next(events), Started)
    assert isinstance(next(events), Status)
    began = time.monotonic()
    cancel.interrupt()
    assert [event.type for event in events] == ["cancelled"]
    assert time.monotonic() - began < 1.0


def test_closing_the_iterator_frees_the_worker(make: Make) -> None:
    engine = make(step_seconds=0.05)
    events = engine.run(resolved_request(steps=150), CancelToken())
    for event in events:
        if isinstance(event, Progress):
            break
    events.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    assert kinds(run(engine, steps=1))[-1] == "finished"
    assert time.monotonic() - began < 2.0


@posix_only
@pytest.mark.parametrize(
    "name, advice", [("SIGKILL", "memory"), ("SIGBUS", "model file"), ("SIGSEGV", "native library")]
)
def test_a_killed_worker_fails_its_job_and_is_replaced(make: Make, name: str, advice: str) -> None:
    engine = make(step_seconds=0.05)
    pid = ready_pid(engine)
    with pytest.raises(WorkerDied) as caught:
        run_until_step(engine, CancelToken(), lambda: os.kill(pid, signal.Signals[name]))
    assert name in caught.value.message
    assert advice in caught.value.message
    assert "worker.log" in caught.value.message
    assert kinds(run(engine))[-1] == "finished"
    assert ready_pid(engine) != pid


@posix_only
def test_a_worker_killed_between_jobs_costs_no_job(make: Make) -> None:
    engine = make()
    os.kill(ready_pid(engine), signal.SIGKILL)
    assert kinds(run(engine))[-1] == "finished"


@posix_only
def test_a_worker_that_dies_idle_is_replaced_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "YOUNG_SECONDS", 0.0)
    engine = make()
    pid = ready_pid(engine)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: engine.info().state == "ready" and ready_pid(engine) != pid)


@posix_only
def test_a_frozen_worker_is_ended_by_an_interrupt(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "SILENCE_SECONDS", 1.5)
    engine, cancel = make(step_seconds=0.05), CancelToken()
    pid = ready_pid(engine)

    def freeze() -> None:
        os.kill(pid, signal.SIGSTOP)
        cancel.interrupt()

    with pytest.raises(WorkerDied):
        run_until_step(engine, cancel, freeze)
    assert kinds(run(engine))[-1] == "finished"


def test_a_lost_device_fails_one_job_and_brings_a_new_process(make: Make) -> None:
    engine = make(behaviour="lost-device")
    pids = {ready_pid(engine)}
    for _ in range(2):
        with pytest.raises(EngineError, match="device fake failed"):
            run(engine)
        assert engine._process is not None
        pids.add(engine._process.pid)
    assert len(pids) == 2


def test_a_worker_that_cannot_start_says_why(make: Make) -> None:
    engine = make(behaviour="cannot-start")
    for _ in range(2):
        with pytest.raises(SettingsError, match="Device 'cuda'") as caught:
            run(engine)
        assert caught.value.field == "device"
    assert engine.info().state == "failed"
    assert "cuda" in engine.info().message


def test_a_worker_that_crashes_at_start_shows_its_last_words(make: Make) -> None:
    with pytest.raises(WorkerDied, match=r"exit code 7 before it was ready.*libfoo"):
        run(make(behaviour="crash"))


def test_a_command_that_does_not_exist_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        run(WorkerEngine(command=["/nowhere/python"]))


def test_info_follows_the_process(make: Make) -> None:
    engine = make(behaviour="slow-start")
    assert engine.info() == EngineInfo(state="stopped")
    engine.start(NO_MODEL)
    assert engine.info().state == "starting"
    wait_for(lambda: engine.info().state == "ready")
    events = engine.run(resolved_request(), CancelToken())
    assert any(isinstance(event, Progress) for event in events)
    assert engine.info().state == "busy"
    assert isinstance(list(events)[-1], Finished)
    assert engine.info().state == "ready"
    engine.close()
    engine.close()
    assert engine.info().state == "stopped"
    with pytest.raises(EngineError, match="closed"):
        run(engine)


@posix_only
def test_close_ends_even_a_frozen_worker(make: Make) -> None:
    engine = make()
    pid = ready_pid(engine)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 8.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@posix_only
def test_a_worker_does_not_outlive_its_server(make: Make) -> None:
    engine = make(step_seconds=0.2)
    pid = ready_pid(engine)
    events = engine.run(resolved_request(steps=150), CancelToken())
    assert any(isinstance(event, Progress) for event in events)
    process = engine._process
    assert process is not None
    process._channel.close()  # what the kernel does when the server is gone
    wait_for(process.gone.is_set, 3.0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(StudioError):
        list(events)


def test_the_server_side_loads_no_torch() -> None:
    code = "import sys, studio.engine.worker_client, studio.engine.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def answered_while_it_runs(engine: WorkerEngine, resolved: ResolvedRequest, model: ModelInfo) -> bool:
    """Whether a wish to decode a step of `model`, made at the third step of a job, is answered before the job ends."""
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(engine.decode(model, None, b"7/1", 2)))
    answered_at: list[int] = []
    for event in engine.run(resolved, CancelToken()):
        if isinstance(event, Progress) and event.step == 3:
            asking.start()
        if answers and isinstance(event, Progress):
            answered_at.append(event.step)
    asking.join(10)
    assert answers and answers[0].startswith(b"\x89PNG")
    return bool(answered_at)


def test_a_step_is_decoded_between_jobs_and_between_steps(make: Make) -> None:
    engine = make(0.02)
    assert engine.decode(NO_MODEL, None, b"7/1", 2).startswith(b"\x89PNG")
    hashed = NO_MODEL.model_copy(update={"short_hash": "0123456789"})  # it was not known yet when the job began
    for model in (NO_MODEL, hashed):
        assert answered_while_it_runs(engine, resolved_request(steps=60), model)


@pytest.mark.parametrize("name", ["base", "other", "two", "first"])
def test_steps_of_every_checkpoint_of_a_job_are_decoded_while_it_runs(make: Make, name: str) -> None:
    """The second pass has its own, and each pass a refiner; the steps before a branch are those of its origin."""
    parts = {"refiner": {"checkpoint": "two", "switch_at": 0.5}, "width": 64, "height": 64}
    resolved = resolved_by_name(asked({"checkpoint": "other"}, steps=30, **parts))
    first = NO_MODEL.model_copy(update={"name": "first", "path": "/m/first"})
    origin = resolved.model_copy(update={"refiner": RefinerPlan(model=first, switch_at=0.5), "hires": None})
    branch = BranchPlan(step=1, origin=origin, text="x")
    model = NO_MODEL.model_copy(update={"name": name, "path": f"/m/{name}"})
    assert answered_while_it_runs(make(0.02), resolved.model_copy(update={"branch": branch}), model)


def test_another_checkpoints_step_waits_for_the_job(make: Make) -> None:
    engine = make(0.02)
    other = NO_MODEL.model_copy(update={"path": "/nowhere/other.safetensors"})
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(engine.decode(other, None, b"7/1", 0)))
    for event in engine.run(resolved_request(steps=100), CancelToken()):
        if isinstance(event, Progress) and event.step == 3:
            asking.start()
        if (
            isinstance(event, Progress) and event.step <= 50
        ):  # the last ones may be read when the worker is done already
            assert not answers
    asking.join(10)
    assert len(answers) == 1


def test_errors_of_decoding_reach_the_asker(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    with pytest.raises(EngineError, match="Decoding failed"):
        engine.decode(NO_MODEL, None, b"no number", 0)
    assert kinds(run(engine))[-1] == "finished"
    monkeypatch.setattr(worker_client, "DECODE_SECONDS", 0.0)
    with pytest.raises(EngineError, match="has not come to decoding"):
        engine.decode(NO_MODEL, None, b"7/1", 0)


def test_kept_latents_reach_the_worker(make: Make) -> None:
    """The fake engine in the worker says what it was given in its pictures' text: see `fake_worker`."""
    engine = make(behaviour="tell-kept")
    events = list(engine.run(resolved_request(steps=1), CancelToken(), b"some latents"))
    (picture,) = [event for event in events if isinstance(event, ImageReady)]
    assert picture.infotext == "kept: some latents"
