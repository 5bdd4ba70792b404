"""Captions written by a process of their own: with real processes, by the file's name; what a network lacks is said before one is started."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest

from studio import captioning
from studio.captioning import CaptionRunner
from studio.datasets import Datasets
from studio.errors import InvalidRequest, NotFound, UnknownName
from studio.paths import Paths
from studio.schema.training_data import CaptionTask, DatasetSettings
from studio.training.captioning import worker
from tests.training.data import drawn

LIMIT_SECONDS = 60


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    (tmp_path / "data").mkdir()
    return Datasets(Paths(tmp_path / "data"))


@pytest.fixture
def settings(tmp_path: Path) -> DatasetSettings:
    """Three pictures with names of words, one with a caption."""
    root = tmp_path / "pictures"
    for number, name in enumerate(("001-red_fox", "002-blue_boat", "003-moon")):
        drawn.save(root / f"{name}.png", number)
    (root / "003-moon.txt").write_text("the moon", encoding="utf-8")
    return DatasetSettings(path=str(root))


def ended(runner: CaptionRunner) -> CaptionTask:
    deadline = time.monotonic() + LIMIT_SECONDS
    while (task := runner.task()) is None or task.state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return task


def slowly(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a Python script take the place of the process."""
    monkeypatch.setattr(captioning, "COMMAND", (sys.executable, "-c", code))


def test_pictures_without_captions_get_one(datasets: Datasets, settings: DatasetSettings) -> None:
    assert datasets.captioning.task() is None
    assert [entry.captions for entry in datasets.captions(settings, 0, 9).entries] == [(), (), ("the moon",)]
    begun = datasets.captioning.start(settings, "file-name", "cpu", replace=False)
    assert (begun.state, begun.path, begun.captioner) == ("running", settings.path, "file-name")
    task = ended(datasets.captioning)
    assert (task.state, task.done, task.total, task.written, task.kept, task.problems) == ("finished", 3, 3, 2, 1, ())
    deadline = time.monotonic() + LIMIT_SECONDS
    wanted = [("red fox",), ("blue boat",), ("the moon",)]
    while [entry.captions for entry in datasets.captions(settings, 0, 9).entries] != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.02)  # what was read before is forgotten when the process has gone


def test_with_replace_all_get_one(datasets: Datasets, settings: DatasetSettings) -> None:
    datasets.captioning.start(settings, "file-name", "cpu", replace=True)
    assert (ended(datasets.captioning).written, Path(settings.path, "003-moon.txt").read_text().strip()) == (3, "moon")


def test_what_cannot_work_is_said_before_a_process_is_started(datasets: Datasets, settings: DatasetSettings) -> None:
    known = {info.name: info.problem for info in datasets.captioning.captioners()}
    assert known["file-name"] == "" and "blip-image-captioning-base" in known["blip"]
    with pytest.raises(NotFound) as caught:
        datasets.captioning.start(settings, "blip", "cpu", replace=False)
    assert caught.value.message == known["blip"] and caught.value.field == "captioner"
    with pytest.raises(UnknownName):
        datasets.captioning.start(settings, "oracle", "cpu", replace=False)
    assert datasets.captioning.task() is None


def test_what_goes_wrong_in_the_process_is_told(datasets: Datasets, settings: DatasetSettings, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "captioners" / "blip"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "vocab.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "config.json").write_text('{"model_type": "gpt"}')
    datasets.captioning.start(settings, "blip", "cpu", replace=False)
    task = ended(datasets.captioning)
    assert task.state == "failed" and "'blip' is needed" in task.message


def test_a_process_that_dies_without_a_word_has_its_last_lines_shown(
    datasets: Datasets, settings: DatasetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, "import sys; sys.exit('out of memory, it seems')")
    datasets.captioning.start(settings, "file-name", "cpu", replace=False)
    task = ended(datasets.captioning)
    assert task.state == "failed" and "ended with code 1. out of memory, it seems" in task.message


def test_what_a_library_prints_is_no_news(
    datasets: Datasets, settings: DatasetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowly(monkeypatch, """print('loading ...'); print('{"written": 2, "kept": 1, "problems": []}')""")
    datasets.captioning.start(settings, "file-name", "cpu", replace=False)
    assert (ended(datasets.captioning).state, ended(datasets.captioning).written) == ("finished", 2)


def test_a_process_that_cannot_be_started_is_no_task(
    datasets: Datasets, settings: DatasetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioning, "COMMAND", ("/there/is/no/python",))
    with pytest.raises(OSError):
        datasets.captioning.start(settings, "file-name", "cpu", replace=False)
    assert datasets.captioning.task() is None and not datasets.captioning.busy(settings)


def test_one_at_a_time_no_edits_meanwhile_and_it_can_be_stopped(
    datasets: Datasets, settings: DatasetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = 'import time; print(\'{"done": 1, "total": 3}\', flush=True); time.sleep(60)'
    slowly(monkeypatch, code)
    runner = datasets.captioning
    runner.start(settings, "file-name", "cpu", replace=False)
    with pytest.raises(InvalidRequest, match="are being written"):
        runner.start(settings, "file-name", "cpu", replace=False)
    with pytest.raises(InvalidRequest, match="A captioner is writing"):
        datasets.edit(settings, "003-moon.png", ["x"])
    deadline = time.monotonic() + LIMIT_SECONDS
    while (task := runner.task()) is None or task.done != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped = runner.stop()
    assert stopped is not None and (stopped.state, stopped.done, stopped.total) == ("stopped", 1, 3)
    process = runner._process
    assert process is not None and process.wait(LIMIT_SECONDS) != 0
    assert datasets.edit(settings, "003-moon.png", ["x"]).former == ("the moon",)
    assert runner.stop() == stopped, "nothing runs any more"


def test_a_process_that_is_ending_changes_nothing_of_the_next_task(
    datasets: Datasets, settings: DatasetSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = 'print(json.dumps({"done": 1, "total": 3}), flush=True)'
    last = 'print(json.dumps({"done": 3, "total": 3}) + chr(10) + json.dumps({"error": "late"}), flush=True)'
    obeys = f"lambda *_: (time.sleep(0.5), {last}, sys.exit(3))"
    slowly(
        monkeypatch,
        f"import json, signal, sys, time; signal.signal(signal.SIGTERM, {obeys}); {says}; time.sleep(60)",
    )
    runner = datasets.captioning
    told = threading.Event()
    monkeypatch.setattr(runner, "_written", told.set)
    runner.start(settings, "file-name", "cpu", replace=False)
    deadline = time.monotonic() + LIMIT_SECONDS
    while (task := runner.task()) is None or task.done != 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    former = runner._process
    runner.stop()
    slowly(monkeypatch, "import time; time.sleep(60)")
    begun = runner.start(settings, "file-name", "cpu", replace=False)
    assert former is not None and former.poll() is None, "it takes its time"
    assert told.wait(LIMIT_SECONDS), "what it wrote is read anew"
    assert runner.task() == begun
    runner.stop()
    assert runner._process is not None and runner._process.wait(LIMIT_SECONDS) != 0


def test_the_process_says_what_it_does(
    settings: DatasetSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = {"path": settings.path, "format": "auto", "captioner": "file-name", "models": "", "device": "cpu"}
    assert worker.main([json.dumps({**order, "replace": False})]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [*({"done": number, "total": 3} for number in (1, 2, 3)), {"written": 2, "kept": 1, "problems": []}]
    assert worker.main([json.dumps({**order, "path": str(tmp_path / "no"), "replace": False})]) == 1
    assert "There is no data set" in json.loads(capsys.readouterr().out)["error"]
