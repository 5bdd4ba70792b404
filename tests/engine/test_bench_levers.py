"""`bench levers`, `bench merging` and `bench switching` run, and say what they promise. The figures are no matter for tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

levers, merging, switching = (importlib.import_module(f"bench.{name}") for name in ("levers", "merging", "switching"))


def run(module: Any, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert module.main(list(words)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_every_lever_has_its_error_and_the_reference_has_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{levers.BEGIN}\nold\n{levers.END}\nafter\n")
    monkeypatch.setattr(levers, "PAGE", page)
    rows = run(levers, capsys, "--quick", "--save")["rows"]
    assert [row["lever"] for row in rows] == list(levers.LEVERS)
    assert (rows[0]["dtype"], rows[0]["mean"], rows[0]["most"]) == ("float32", 0.0, 0)
    same = {row["lever"] for row in rows[2:] if row["mean"] == 0}
    assert same <= {"and NGMS 1, every other step"}, "of so few steps none may be left to skip"
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert all(f"| {name} |" in text for name in levers.LEVERS)


def test_merging_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(merging, capsys, "--quick")["rows"]
    assert [row["ratio"] for row in rows] == list(merging.RATIOS)
    assert rows[0]["gain"] == 1 and all(row["seconds"] > 0 for row in rows)
    assert rows[0]["error"] == 0 and all(0 < row["error"] < 1 for row in rows[1:])


def test_switching_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(switching, capsys, "--quick")
    assert len(found["reload"]["resident_mib"]) == switching.TIMES
    assert found["switch"]["max"] < found["load"]["min"]
