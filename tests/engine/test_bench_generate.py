"""The shell of `bench generate`: parts, JSON, failures. The figures themselves are no matter for tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from studio.errors import EngineError
from tests.engine.samples import NO_MODEL

generate = importlib.import_module("bench.generate")


def broken(quick: bool) -> dict[str, Any]:
    raise EngineError("no such device")


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_MEASURES", {"page": lambda quick: {"quick": quick}, "worker": broken})
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


def test_prints_one_json_object_with_the_parts_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--quick", "--parts", "page"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["page"] == {"quick": True}
    assert "worker" not in printed
    assert printed["machine"]["cores"] >= 1


def test_a_part_that_fails_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--parts", "page", "worker"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["page"] == {"quick": False}
    assert printed["worker"] == {"error": "no such device"}


def test_results_are_kept_only_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(generate, "RESULTS", tmp_path)
    generate.main(["--parts", "page"])
    assert not list(tmp_path.iterdir())
    generate.main(["--parts", "page", "--save"])
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["bench"] == "generate"


@pytest.mark.parametrize(
    "asked, why",
    [
        (["--rounds", "3"], "--rounds: only with --peers"),
        (["--out", "x.json", "--device", "cpu"], "--device --out: only with --peers"),
        (["--report", "x.json", "--save"], "--report: only with --peers"),
        (["--peers", "--parts", "page"], "--parts: not with --peers"),
        (["--peers", "--report", "x.json", "--workloads", "W1"], "--report measures nothing: leave --workloads out"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    asked: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(asked) == 2
    said = capsys.readouterr()
    assert why in said.err and said.out == ""


def test_requests_differ_in_their_prompts_so_that_none_is_cached() -> None:
    one, other = (generate._request(NO_MODEL, steps=2, seed=seed) for seed in (1, 2))
    assert one.positive != other.positive
    assert one.negative != other.negative
    assert (one.width, one.steps) == (NO_MODEL.native_size, 2)
