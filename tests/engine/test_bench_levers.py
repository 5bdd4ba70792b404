"""`bench levers`, `bench exact`, `bench merging` and `bench switching` run, and say what they promise. The figures are no matter for tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from studio.schema.levers import LEVERS

levers, merging, switching, exact = (
    importlib.import_module(f"bench.{name}") for name in ("levers", "merging", "switching", "exact")
)


def run(module: Any, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert module.main(list(words)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
def test_every_lever_has_its_error_and_the_reference_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(levers, capsys, "--quick")["rows"]
    assert [row["lever"] for row in rows] == list(levers.LEVERS)
    assert (rows[0]["dtype"], rows[0]["mean"], rows[0]["most"]) == ("float32", 0.0, 0)
    same = {row["lever"] for row in rows[2:] if row["mean"] == 0}
    assert same <= {"and NGMS 1, every other step"}, "of so few steps none may be left to skip"


def test_all_levers_paint_a_prompt_before_any_paints_the_next() -> None:
    """What disturbs the machine for a while would else make one lever slow and another fast."""
    painted: list[tuple[str, str]] = []

    def painter(name: str) -> Any:
        def paint(text: str, seed: int) -> np.ndarray:
            painted.append((name, text))
            return np.full((2, 2, 3), seed, np.uint8)

        return paint

    prompts = [SimpleNamespace(order=("a fox", 1)), SimpleNamespace(order=("a cat", 2))]
    seconds, pictures = levers.painted({name: painter(name) for name in ("one", "two")}, prompts)
    assert painted[2:] == [("one", "a fox"), ("two", "a fox"), ("one", "a cat"), ("two", "a cat")]
    assert [len(each) for each in seconds.values()] == [2, 2]
    assert [[int(picture[0, 0, 0]) for picture in each] for each in pictures.values()] == [[1, 2], [1, 2]]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A page for the table, and rows that nobody measured."""
    file = tmp_path / "speed.md"
    file.write_text("\n".join(("before", levers.MARKS[0], "old", levers.MARKS[1], "after\n")))
    share = {"share": 0.5, "interval": [0.4, 0.6]}
    figures = {"pictures": 64, "dtype": "float32", "seconds": 1.0, "mean": 0.0, "most": 0, "object": share}
    monkeypatch.setattr(levers, "PAGE", file)
    monkeypatch.setattr(levers, "measure", lambda count: [{"lever": name, **figures} for name in levers.LEVERS])
    return file


def test_saving_rewrites_the_table_and_nothing_else(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(levers, capsys, "--save")
    text = page.read_text()
    assert text.startswith(f"before\n{levers.MARKS[0]}\n") and text.endswith(f"\n{levers.MARKS[1]}\nafter\n")
    assert "old" not in text and all(f"| {name} |" in text for name in levers.LEVERS)
    assert "64 held-out prompts of sprout-v1 (`--count 64`)" in text and found["machine"]["processor"] in text


def test_a_page_without_marks_is_left_as_it_is_and_the_result_is_printed(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = f"# Speed\n{levers.MARKS[0]}\nold\nafter\n"
    page.write_text(broken)
    assert levers.main(["--save"]) == 1
    said = capsys.readouterr()
    assert page.read_text() == broken
    assert len(json.loads(said.out)["rows"]) == len(levers.LEVERS) and "once each" in said.err


def test_merging_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(merging, capsys, "--quick")["rows"]
    assert [row["ratio"] for row in rows] == list(merging.RATIOS)
    assert rows[0]["gain"] == 1 and all(row["seconds"] > 0 for row in rows)
    assert rows[0]["error"] == 0 and all(0 < row["error"] < 1 for row in rows[1:])


def test_switching_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(switching, capsys, "--quick")
    assert len(found["reload"]["resident_mib"]) == switching.TIMES
    assert found["switch"]["max"] < found["load"]["min"]
    assert all(goal["met"] is (goal["measured"] <= goal["at_most"]) for goal in found["goals"].values())


@pytest.mark.parametrize("seconds, spread, met", [(0.8, 5.0, [True, True, True]), (0.81, 5.1, [False, True, False])])
def test_goals_of_switching(seconds: float, spread: float, met: list[bool]) -> None:
    result = {"reload": {"with_first_pass": seconds, "spread_percent": spread}, "lora_switch": {"median": 0.05}}
    assert [goal["met"] for goal in switching.goals(result).values()] == met


def test_exact_levers_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them, in one format: each has a worker process of its own."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # which it takes away for its workers
    monkeypatch.setattr(exact, "FORMATS", ("fp32",))
    monkeypatch.setattr(exact, "FLAGS", {"kept-merges": exact.FLAGS["kept-merges"]})
    (row,) = run(exact, capsys, "--quick")["rows"]
    assert (row["lever"], row["dtype"], row["most"], row["mean"]) == ("kept-merges", "float32", 0, 0.0)
    assert row["seconds"] > 0 and row["without"] > 0
    page = tmp_path / "speed.md"
    page.write_text("\n".join(("before", exact.MARKS[0], "old", exact.MARKS[1], "after\n")))
    monkeypatch.setattr(exact, "PAGE", page)
    monkeypatch.setattr(exact, "measure", lambda folder, rounds, tiny: [row])
    run(exact, capsys, "--save")
    assert "| `kept-merges` | float32 |" in page.read_text() and "old" not in page.read_text()


def test_every_lever_on_a_processor_has_a_row() -> None:
    """Each is taken away by a flag; what is decoded beside is a matter of cards."""
    assert exact.FLAGS["packing"] == {"without": "packing"}
    assert set(exact.FLAGS) - {exact.SDPA} == set(LEVERS) - {"decoding-beside"}
