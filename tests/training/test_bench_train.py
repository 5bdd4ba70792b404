"""`bench train`: what it makes of the measured seconds, the meter, and that both loops run on tiny shapes. The figures are no matter for tests."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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
