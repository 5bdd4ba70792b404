"""The life of runs, with real processes: queue, wishes, kill -9 of whoever, adoption, trash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio import trainer as trainer_module
from studio.errors import InvalidRequest, NotAllowed, NotFound, QueueFull
from studio.paths import REPOSITORY, Paths
from studio.runs import folder as folder_module
from studio.training.runs import RunFolder
from studio.training.sitting import claim, last_sitting
from tests.runs.conftest import Make, reaches, until
from tests.runs.pretend import configuration, trainer


def test_a_run_from_the_queue_to_the_picker(make: Make, data: Path, tmp_path: Path) -> None:
    manager = make()
    made = manager.create(configuration(data, steps=12, trigger="duotone style"))
    assert made.state in ("queued", "running")
    record = until(manager, made.id, "finished")
    assert (record.lora, record.trigger, record.method, record.model) == (
        "duotone",
        "duotone style",
        "lora",
        "sprout-v1",
    )
    assert (record.summary.step, record.summary.total, record.pid, record.position) == (12, 12, None, None)
    assert record.summary.validation == pytest.approx(0.2 / 1.5)
    (tmp_path / "loras" / "duotone.safetensors").unlink()
    assert manager.run(made.id).lora is None
    with pytest.raises(InvalidRequest, match="finished"):
        manager.resume(made.id)
    assert "step 12" in manager.log(made.id, 100).text
    assert manager.detail(made.id).config == configuration(data, steps=12, trigger="duotone style").model_dump(
        mode="json"
    )


def test_one_trains_at_a_time_in_the_order_they_came(make: Make, data: Path) -> None:
    manager = make()
    ids = [manager.create(configuration(data, name=name, steps=15)).id for name in ("a", "b", "c")]
    until(manager, ids[0], "running")
    waiting = [(manager.run(run_id).state, manager.run(run_id).position) for run_id in ids[1:]]
    assert waiting == [("queued", 1), ("queued", 2)]
    together = 0
    while manager.run(ids[2]).state != "finished":
        together = max(together, sum(record.state == "running" for record in manager.runs()))
        time.sleep(0.01)
    assert together == 1
    ends = [manager.run(run_id).summary.ended or 0 for run_id in ids]
    assert ends == sorted(ends)
    assert [record.id for record in manager.runs()] == sorted(ids, key=lambda run_id: -manager.run(run_id).created)


def test_stop_saves_and_resume_goes_on(make: Make, data: Path) -> None:
    manager = make()
    run_id = manager.create(configuration(data, steps=400)).id
    reaches(manager, run_id, 5)
    stopping = manager.stop(run_id)
    assert stopping.stopping
    assert stopping.force_at is not None
    stopped = until(manager, run_id, "stopped").summary.step
    assert 5 <= stopped < 400
    assert manager.run(run_id).pid is None
    manager.resume(run_id)
    until(manager, run_id, "running")
    events = manager.events(run_id, 0, 1 << 20).events
    assert [event["step"] for event in events if event["kind"] == "stage"][1:] in ([], [stopped])
    reaches(manager, run_id, stopped + 1)
    steps = [event["step"] for event in manager.events(run_id, 0, 1 << 20).events if event["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


def test_wishes_are_met_and_a_paused_run_waits(make: Make, data: Path) -> None:
    manager = make()
    run_id = manager.create(configuration(data, steps=4000, samples={"prompts": ["a fox", "a boat"]})).id
    reaches(manager, run_id, 3)
    manager.sample(run_id)
    manager.save(run_id)
    paused = manager.pause(run_id)
    assert "pause" in paused.obeys
    step = until(manager, run_id, "paused").summary.step
    time.sleep(0.3)
    assert manager.run(run_id).summary.step == step
    samples = manager.samples(run_id)
    assert [(sample.step, sample.index) for sample in samples][:2] == [(0, 0), (0, 1)]
    assert len(samples) == 4
    assert {sample.prompt for sample in samples} == {"a fox", "a boat"}
    name = samples[-1].url.rsplit("/", 1)[-1]
    assert manager.sample_bytes(run_id, name).startswith(b"\x89PNG")
    for wrong in ("../config.json", "config.json", "step-1-1.png/../../log.txt", "step-00000099-00.png"):
        with pytest.raises(NotFound):
            manager.sample_bytes(run_id, wrong)
    manager.resume(run_id)
    until(manager, run_id, "running")
    reaches(manager, run_id, step + 1)
    manager.stop(run_id)
    until(manager, run_id, "stopped")
    with pytest.raises(InvalidRequest, match="stopped"):
        manager.pause(run_id)


def test_the_revision_counts_changes_and_nothing_else(make: Make, data: Path) -> None:
    manager = make(start=False)
    first = manager.create(configuration(data))
    assert manager.run(first.id) == first  # looked at again, and nothing has changed
    later = manager.create(configuration(data))
    assert manager.run(first.id).revision == first.revision  # another run's change is none of this one's
    stopped = manager.stop(later.id)
    assert (later.state, stopped.state) == ("queued", "stopped")
    assert stopped.revision == later.revision + 1


def test_a_killed_process_is_seen_and_goes_on(make: Make, data: Path) -> None:
    manager = make()
    run_id = manager.create(configuration(data, steps=4000)).id
    pid = reaches(manager, run_id, 3).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    record = until(manager, run_id, "interrupted")
    assert record.pid is None
    folder = RunFolder(data.parent / "outputs" / "runs" / run_id)
    with folder.events.open("ab") as stream:
        stream.write(b'{"kind":"step","st')  # what the process was writing when it died
    before = manager.run(run_id).summary.offset
    manager.resume(run_id)
    deadline = time.monotonic() + 20
    while len(events := manager.events(run_id, before, 1 << 20).events) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [event["kind"] for event in events[:2]] == ["starting", "stage"]
    assert all(json.loads(line) for line in folder.events.read_text().splitlines())


def test_a_new_server_adopts_what_the_old_one_started(make: Make, data: Path) -> None:
    old = make()
    ids = [old.create(configuration(data, name=name, steps=60)).id for name in ("a", "b")]
    pid = reaches(old, ids[0], 3).pid
    old.close()  # as after kill -9, nothing of it is in memory any more
    offset = old.events(ids[0], 0, 1 << 20).offset
    new = make()
    adopted = new.run(ids[0])
    assert (adopted.state, adopted.pid) == ("running", pid)
    assert new.run(ids[1]).state == "queued"
    until(new, ids[1], "finished")
    steps = [
        event["step"]
        for event in (*old.events(ids[0], 0, offset).events, *new.events(ids[0], offset, 1 << 22).events)
        if event["kind"] == "step"
    ]
    assert steps == list(range(1, 61))


def test_a_run_that_ended_while_no_server_was_there(make: Make, data: Path) -> None:
    manager = make()
    run_id = manager.create(configuration(data, steps=25)).id
    reaches(manager, run_id, 1)
    manager.close()
    deadline = time.monotonic() + 10
    while b"finished" not in RunFolder(data.parent / "outputs" / "runs" / run_id).events.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert until(make(), run_id, "finished").lora == "duotone"


def test_a_pid_that_belongs_to_somebody_else_is_no_process(make: Make, data: Path) -> None:
    manager = make()
    run_id = manager.create(configuration(data, steps=4000)).id
    folder = RunFolder(data.parent / "outputs" / "runs" / run_id)
    os.kill(reaches(manager, run_id, 1).pid or 0, signal.SIGKILL)
    until(manager, run_id, "interrupted")
    facts = json.loads((folder.path / "process.json").read_text())
    (folder.path / "process.json").write_text(json.dumps({**facts, "pid": os.getpid()}))
    assert manager.run(run_id).state == "interrupted"


def test_force_is_used_only_late_and_ends_a_deaf_process(
    make: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(how="deaf")
    run_id = manager.create(configuration(data, steps=4000)).id
    reaches(manager, run_id, 2)
    with pytest.raises(NotAllowed, match="30 seconds"):
        manager.force_stop(run_id)
    manager.stop(run_id)
    with pytest.raises(NotAllowed, match="30 seconds"):
        manager.force_stop(run_id)
    with pytest.raises(InvalidRequest, match="stopping"):
        manager.resume(run_id)
    monkeypatch.setattr(folder_module, "FORCE_SECONDS", 0.1)
    time.sleep(0.3)
    assert manager.run(run_id).state == "running"
    manager.force_stop(run_id)
    until(manager, run_id, "interrupted")


def test_a_process_that_never_began_or_failed_says_why(make: Make, data: Path) -> None:
    manager = make(how="early")
    run_id = manager.create(configuration(data)).id
    failed = until(manager, run_id, "failed")
    assert "before it began" in failed.summary.message
    assert "there is no torch" in failed.summary.message
    manager.close()
    other = make(how="fail")
    other.resume(run_id)
    assert until(other, run_id, "failed").summary.message == "The disk is full."


def test_a_run_says_that_it_starts_before_its_process_says_anything(
    make: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make()
    record = manager.create(configuration(data))
    assert (record.state, record.summary.starting) == ("running", True), "in the very answer to who started it"
    assert [event["kind"] for event in manager.events(record.id, 0, 1000).events] == ["starting"]
    waiting = manager.create(configuration(data, name="other"))
    assert (waiting.state, waiting.summary.starting) == ("queued", False)
    assert not reaches(manager, record.id, 1).summary.starting
    until(manager, record.id, "finished")
    events = RunFolder(data.parent / "outputs" / "runs" / record.id).events
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    with events.open("ab") as stream:
        stream.write(b'{"kind":"st')  # as a killed process leaves it
    run = RunFolder(events.parent)
    say = "import os; print(os.environ['OMP_WAIT_POLICY'], os.environ['THP_MEM_ALLOC_ENABLE'])"
    trainer_module.start_worker(run, [sys.executable, "-c", say]).wait(10)
    assert events.read_bytes().splitlines()[-1].endswith(b'"kind":"starting"}')
    assert trainer_module.log_tail(run).endswith("PASSIVE 1\n")


def test_caches_are_pruned_but_nothing_of_a_run_that_trains(make: Make, data: Path, tmp_path: Path) -> None:
    file = Paths(tmp_path).training_caches / "latents" / "aa" / "aa.safetensors"
    file.parent.mkdir(parents=True)

    def fill(age: float) -> None:
        file.write_bytes(bytes(2_000_000))
        os.utime(file, (time.time() - age, time.time() - age))

    fill(5)
    make(start=False, training_cache_gb=0).tidy()
    assert file.exists(), "0 is no bound"
    make(start=False, training_cache_gb=0.001).tidy()
    assert not file.exists()
    busy = make(training_cache_gb=0.001)
    run_id = busy.create(configuration(data, steps=4000)).id
    reaches(busy, run_id, 1)
    fill(0)
    make(start=False, training_cache_gb=0.001).tidy()
    assert file.exists(), "used since the run began"
    busy.stop(run_id)
    until(busy, run_id, "stopped")
    deadline = time.monotonic() + 20
    while file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_never_has_two_processes(make: Make, data: Path) -> None:
    manager = make(start=False)
    run_id = manager.create(configuration(data)).id
    folder = RunFolder(data.parent / "outputs" / "runs" / run_id)
    with claim(folder):
        assert manager.run(run_id).state == "running"  # this very process sits at it
        other = subprocess.run(trainer()(folder, "cpu"), cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "by another process already" in other.stderr
        sitting = last_sitting(folder)
        assert sitting is not None
        assert sitting.pid == os.getpid()


def test_delete_moves_to_the_trash_and_stop_empties_the_queue(make: Make, data: Path, tmp_path: Path) -> None:
    manager = make()
    first, second = (manager.create(configuration(data, name=name, steps=4000)).id for name in ("a", "b"))
    reaches(manager, first, 1)
    with pytest.raises(InvalidRequest, match="running"):
        manager.delete(first)
    assert manager.stop(second).state == "stopped"
    manager.delete(second)
    assert [record.id for record in manager.runs()] == [first]
    (trashed,) = (tmp_path / "outputs" / "runs" / ".trash").iterdir()
    assert trashed.name.startswith(second)
    with pytest.raises(NotFound, match=second):
        manager.run(second)


def test_a_run_whose_folder_was_removed_by_hand_is_not_found(
    make: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make(start=False)
    orders: list[Callable[[str], object]] = [manager.run, manager.stop, manager.resume, manager.pause, manager.delete]
    orders += [manager.detail, manager.curves, manager.samples]
    for order in orders:
        made = manager.create(configuration(data))
        shutil.rmtree(tmp_path / "outputs" / "runs" / made.id)
        with pytest.raises(NotFound, match=made.id):
            order(made.id)
    made = manager.create(configuration(data))
    look = manager.look

    def removed_meanwhile() -> None:
        shutil.rmtree(tmp_path / "outputs" / "runs" / made.id)
        look()

    monkeypatch.setattr(manager, "look", removed_meanwhile)
    with pytest.raises(NotFound, match=made.id):
        manager.run(made.id)


def test_duplicates_get_folders_of_their_own_and_the_queue_has_an_end(make: Make, data: Path) -> None:
    manager = make(start=False, max_queue=2)
    first = manager.create(configuration(data))
    second = manager.duplicate(first.id)
    assert second.id == f"{first.id}-2"
    with pytest.raises(QueueFull):
        manager.duplicate(first.id)
    assert manager.detail(first.id).config == manager.detail(second.id).config


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": "x"}'])
def test_damaged_folders_are_shown_and_harm_nobody(make: Make, data: Path, rubbish: bytes) -> None:
    folder = Paths(data.parent).runs / "broken"
    folder.mkdir(parents=True)
    for name in ("config.json", "process.json", "queued.json"):
        (folder / name).write_bytes(rubbish)
    (folder / "events.jsonl").write_bytes(b'\xff{"kind":"stage"}\n{"kind":"step","step":"many"}\n[1]\n{"kind":"st')
    manager = make()
    record = manager.run("broken")
    assert record.state == "interrupted"
    assert record.problem
    assert manager.curves("broken").curves == []
    run_id = manager.create(configuration(data, steps=3)).id
    until(manager, run_id, "finished")


def test_a_method_that_knows_no_pause_is_not_asked(make: Make) -> None:
    manager = make(start=False)
    config = {"name": "tiny", "method": {"kind": "judge"}}
    run_id = manager.create(type(configuration(Path())).model_validate(config)).id
    with claim(RunFolder(manager._paths.runs / run_id)):
        assert manager.run(run_id).obeys == ("stop",)
        with pytest.raises(InvalidRequest, match="'judge' cannot pause"):
            manager.pause(run_id)


SERVER = """
import sys, threading
from pathlib import Path
from studio.paths import Paths
from studio.runs import RunManager
from studio.settings import Settings
from tests.runs.pretend import configuration, trainer
folder = Path(sys.argv[1])
manager = RunManager(Paths(folder), Settings, command=trainer(0.02))
manager.start(lambda: None)
print(*(manager.create(configuration(folder, name=name, steps=80)).id for name in ("a", "b")), flush=True)
threading.Event().wait()
"""


def test_kill_9_of_the_server_stops_no_run_and_loses_no_event(make: Make, data: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(data.parent)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdout is not None
        first, second = server.stdout.readline().split()
        watcher = make(start=False)
        pid = reaches(watcher, first, 3).pid
        server.kill()
    assert watcher.run(first).pid == pid
    manager = make()
    assert manager.run(first).state == "running"
    until(manager, first, "finished")
    until(manager, second, "finished")
    for run_id in (first, second):
        events = manager.events(run_id, 0, 4 << 20).events
        assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, 81))
        assert sum(event["kind"] == "stage" for event in events) == 1
