"""Who sits at a run: known by something that no change of the clock touches."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.training import sitting
from studio.training.runs import RunFolder
from studio.training.sitting import Sitting, claim, last_sitting

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells nothing but the time")


def seated(tmp_path: Path, **facts: Any) -> Sitting:
    """This process at a run, with `facts` in place of those in the file."""
    run = RunFolder(tmp_path)
    claim(run).close()
    file = tmp_path / "process.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    found = last_sitting(run)
    assert found is not None
    return found


def move_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What psutil tells of every process once the clock was set: it adds the time since boot to a boot time that it reads anew."""
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + seconds)


@linux
@pytest.mark.parametrize("seconds", [-86400.0, -3.0, 3.0, 86400.0])
def test_a_process_lives_on_when_the_clock_is_set(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seated(tmp_path)
    move_clock(monkeypatch, seconds)
    assert found.process() == psutil.Process()


@linux
def test_another_process_with_the_pid_is_none(tmp_path: Path) -> None:
    own = seated(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert seated(tmp_path, pid=other.pid).process() is None
    boot, _, ticks = own.birth.partition("/")
    assert boot and int(ticks) > 0
    assert seated(tmp_path, birth=f"{'0' * len(boot)}/{ticks}").process() is None  # as long after another boot
    assert seated(tmp_path, birth=f"{boot}/{int(ticks) + 1}").process() is None


def test_a_process_that_ended_is_none(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        there = Sitting(other.pid, psutil.Process(other.pid).create_time(), 0, sitting._birth(other.pid))
        assert there.process() is not None
    assert there.process() is None


def test_what_earlier_versions_wrote_goes_by_the_time(tmp_path: Path) -> None:
    facts = asdict(seated(tmp_path))
    del facts["birth"]
    (tmp_path / "process.json").write_text(json.dumps(facts))
    found = last_sitting(RunFolder(tmp_path))
    assert found is not None and found.process() == psutil.Process()
    (tmp_path / "process.json").write_text(json.dumps({**facts, "started": facts["started"] - 60}))
    found = last_sitting(RunFolder(tmp_path))
    assert found is not None and found.process() is None


def test_where_the_system_tells_nothing_else_the_time_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "_BOOT", tmp_path / "none")
    found = seated(tmp_path)
    assert found.birth == "" and found.process() == psutil.Process()
    assert seated(tmp_path, started=1.0).process() is None
