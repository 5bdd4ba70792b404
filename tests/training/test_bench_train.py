"""`bench train`: what it makes of the measured seconds, the meter, and that both loops run on tiny shapes. The figures are no matter for tests."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

bench = importlib.import_module("bench.train")
REPOSITORY = Path(__file__).resolve().parents[2]


def figures(*seconds: float, share: float = 0.9, peak: int | None = 2**30) -> dict[str, Any]:
    return {
        "cpu_seconds": list(seconds),
        "unet_share": share,
        "cpu_seconds_to_first_step": 3.0,
        "peak_bytes": peak,
    }


def test_rounds_are_taken_together_and_compared_by_medians() -> None:
    found = {
        "studio": [figures(1.0, 2.0, share=0.99), figures(3.0, share=0.98)],
        "plain_bf16": [figures(5.0, peak=2**32)],
        "plain_fp32": [figures(8.0, 8.0, peak=None)],
    }
    result = bench.summary(found)
    ours = result["contenders"]["studio"]
    assert ours["cpu_seconds_a_step"] == {"median": 2.0, "min": 1.0, "max": 3.0, "steps": 3}
    assert ours["unet_share"] == 0.98 and ours["peak_gib"] == 1.0
    assert result["studio_against"]["plain_bf16"] == {"times_as_fast": 2.5, "peak_memory": 0.25}
    assert result["studio_against"]["plain_fp32"] == {"times_as_fast": 4.0, "peak_memory": None}


def test_a_contender_that_fails_is_said_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*arguments: str) -> str:
        raise subprocess.CalledProcessError(1, arguments)

    monkeypatch.setattr(bench, "_process", failing)
    assert bench.main(["--quick"]) == 1
    assert capsys.readouterr().out == ""


def test_one_step_cannot_be_measured_and_no_round_at_all_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--steps", "1"])
    assert "'1'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--rounds", "0"])


def test_every_other_round_goes_backwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def answering(*arguments: str) -> str:
        asked.append(arguments)
        return "noise\n" + json.dumps(figures(1.0, 1.0))

    monkeypatch.setattr(bench, "_process", answering)
    monkeypatch.setattr(bench.click, "measure", lambda root, side: {"side": side})
    result = bench.measure(tmp_path, quick=True, steps=2, rounds=2)
    forwards = ["studio", "plain_bf16", "plain_fp32"]
    assert [name for name, *_ in asked] == ["make-thin", *forwards, *reversed(forwards)]
    assert {arguments[2] for arguments in asked[1:]} == {"3"}, "one step more, which is left out"
    assert [arguments[3] for arguments in asked[1:]] == ["1"] * 3 + ["2"] * 3, "a seed of its own: a new run"
    assert result["studio_against"]["plain_fp32"]["times_as_fast"] == 1.0
    assert result["over_http"] == {"side": 64}


def test_the_meter_counts_the_u_net_and_nothing_else() -> None:
    """In a process of its own: the meter's hooks stay for its whole life."""
    code = """
import json, time, torch
from diffusers import UNet2DConditionModel
from bench.tuning.meter import Meter

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

class Net(UNet2DConditionModel):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, x):
        burn(0.03)
        return self.weight * x

net, meter = Net(), Meter()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(4):
    burn(0.01)
    torch.autograd.backward(net(torch.ones(1)).sum())
    optimizer.step()
print(json.dumps(meter.figures()))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert len(found["cpu_seconds"]) == 3 and min(found["cpu_seconds"]) >= 0.04
    assert 0.5 < found["unet_share"] < 0.8
    assert found["peak_bytes"] is None or found["peak_bytes"] > 2**26


# -- a run over HTTP ---------------------------------------------------------------------------------------------------


class Clock:
    """Stands still but while somebody sleeps, which `answers` may stretch."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_run_has_its_time_from_event_to_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work ahead takes longer on a slow machine than what a run that has hung may be silent for."""
    clock, click = Clock(), bench.click
    monkeypatch.setattr(click, "time", clock)
    patience = click.PATIENCE_SECONDS

    def answer(address: str) -> dict[str, Any]:
        clock.now += 0.9 * patience
        number = int(address.partition("=")[2])
        return {"events": [{"kind": str(number)}] if number < 4 else [], "offset": number + 1}

    monkeypatch.setattr(click, "_ask", answer)
    seen = click._follow("http://here/events")
    assert [next(seen)["kind"] for _ in range(4)] == ["0", "1", "2", "3"]
    with pytest.raises(TimeoutError, match=f"did nothing for {patience} seconds"):
        next(seen)


@pytest.mark.parametrize("error", [TimeoutError("silence"), KeyboardInterrupt()])
def test_a_run_that_is_not_measured_to_its_end_is_asked_to_stop(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    click, asked = bench.click, list[str]()

    def following(address: str) -> Iterator[dict[str, Any]]:
        yield {"kind": "starting"}
        raise error

    def answer(address: str, body: dict[str, Any]) -> dict[str, Any]:
        asked.append(address)
        return {"id": "click"}

    monkeypatch.setattr(click, "_server", lambda root: contextlib.nullcontext("there"))
    monkeypatch.setattr(click, "_follow", following)
    monkeypatch.setattr(click, "_ask", answer)
    with pytest.raises(type(error)):
        click.measure(tmp_path, 64)
    assert asked[-1] == "there/training/runs/click/stop"


def running(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of this code, once it has printed a line."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("deaf", [True, False])
def test_the_server_ends_and_so_does_who_trains_for_it(
    deaf: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that trains is detached from the server, and would go on for a thousand steps."""
    code = f"""
import signal, subprocess, sys, time
if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""
    monkeypatch.setattr(bench.click, "ENDING_SECONDS", 0.5)
    with running(code) as server:
        assert server.stdout is not None
        child = psutil.Process(int(server.stdout.readline()))
        bench.click._end(server, tmp_path / "runs")
        assert server.returncode == (-signal.SIGKILL if deaf else -signal.SIGTERM)
        assert not psutil.wait_procs([child], 20)[1]


def test_who_sits_at_a_run_ends_with_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench.click, "ENDING_SECONDS", 0.5)
    run = tmp_path / "runs" / "click"
    run.mkdir(parents=True)
    with running("") as server, running("import time; print(flush=True); time.sleep(600)") as trainer:
        server.wait()
        started = psutil.Process(trainer.pid).create_time()
        (run / "process.json").write_text(json.dumps({"pid": trainer.pid, "started": started, "offset": 0}))
        bench.click._end(server, tmp_path / "runs")
        assert trainer.wait(20) == -signal.SIGKILL
