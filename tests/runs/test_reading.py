"""What is made of a run's events: the summary and the thinned curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import SettingsError
from studio.runs.curves import MOST_POINTS, CurveReader, Series
from studio.runs.presets import PRESETS, presets
from studio.runs.summary import SummaryReader
from studio.schema.training import TrainingConfig
from studio.training.runs import RunFolder, RunStarting, read_lines
from studio.training.sitting import claim, last_sitting
from tests.runs.pretend import step_done


def write(folder: Path, *events: dict[str, Any] | bytes) -> RunFolder:
    run = RunFolder(folder)
    with run.events.open("ab") as stream:
        for event in events:
            stream.write(event if isinstance(event, bytes) else json.dumps({"time": 1.0, **event}).encode() + b"\n")
    return run


STAGE = {"kind": "stage", "stage": "train", "step": 0, "total": 10}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5 * MOST_POINTS))
@settings(max_examples=30, deadline=None)
def test_a_thinned_curve_keeps_mean_extremes_and_end(values: list[float]) -> None:
    series = Series()
    for step, value in enumerate(values, 1):
        series.add(step, value)
    points = series.points()
    assert len(points) <= MOST_POINTS
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    assert points[-1][0] == len(values)
    assert min(point[2] for point in points) == pytest.approx(min(values), rel=1e-4)
    assert max(point[3] for point in points) == pytest.approx(max(values), rel=1e-4)
    widths = [
        last - first
        for first, last in zip([0, *(point[0] for point in points)], [point[0] for point in points], strict=False)
    ]
    mean = sum(width * point[1] for width, point in zip(widths, points, strict=True)) / len(values)
    assert mean == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-3 * max(map(abs, values)))


def test_steps_that_come_again_replace_what_was_told_and_what_is_no_number_is_left_out() -> None:
    series = Series()
    for step, value in [(1, 1.0), (2, 9.0), (3, 9.0), (2, 2.0), (3, math.nan), (3, math.inf), (3, 3.0)]:
        series.add(step, value)
    assert series.points() == [(1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3)]


def test_the_speed_is_that_of_the_steps_where_they_are_told(tmp_path: Path) -> None:
    step = {"kind": "step", "step": 4, "loss": 1, "rate": 1, "norm": 1, "seconds": 0.5, "memory": 1}
    after_samples = {"kind": "progress", "stage": "train", "step": 4, "total": 10, "per_second": 0.01, "eta_s": 600}
    reader = SummaryReader(write(tmp_path, STAGE, step, after_samples))
    assert (reader.read().per_second, reader.read().eta_s) == (2, 3)
    write(tmp_path, {**STAGE, "stage": "export"}, {**after_samples, "stage": "export"})
    assert (reader.read().per_second, reader.read().eta_s) == (0.01, 600)


def test_curves_by_stage_and_followed(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"kind": "stage", "stage": "draw", "step": 0, "total": 5},
        {
            "kind": "progress",
            "stage": "draw",
            "step": 5,
            "total": 5,
            "per_second": 1,
            "eta_s": 0,
            "values": {"done": 2},
        },
        STAGE,
        {"kind": "measured", "stage": "train", "values": {"epoch_steps": 4}},
    )
    run.append(step_done(1))
    reader = CurveReader(run)
    first = reader.read()
    assert (first.stage, first.stages, first.epoch_steps) == ("train", ["draw", "train"], 4)
    assert {curve.name for curve in first.curves} == {"loss", "rate", "norm", "memory"}
    assert first.offset == run.events.stat().st_size
    run.append(step_done(2))
    write(tmp_path, {"kind": "validated", "step": 2, "loss": 0.125, "best": True})
    curves = {curve.name: curve.points for curve in reader.read().curves}
    assert [point[0] for point in curves["loss"]] == [1, 2]
    assert curves["validation"] == [(2, 0.125, 0.125, 0.125)]
    (draw,) = reader.read("draw").curves
    assert (draw.name, draw.points) == ("done", [(5, 2, 2, 2)])
    assert reader.read("nonsense").stage == "train"


def test_the_summary_of_a_life(tmp_path: Path) -> None:
    run = write(tmp_path, STAGE)
    reader = SummaryReader(run)
    assert reader.read().total == 10
    run.append(step_done(4, seconds=0.5))
    summary = reader.read()
    assert (summary.step, summary.per_second, summary.eta_s) == (4, 2, 3)
    assert summary.values["loss"] == pytest.approx(step_done(4).loss)
    write(tmp_path, {"kind": "command", "name": "paused", "step": 4}, {"kind": "note", "message": "well"})
    assert (reader.read().paused, reader.read().note) == (True, "well")
    write(tmp_path, {"kind": "failed", "message": "no", "time": 1.0})
    assert (reader.read().ending, reader.read().message, reader.read().paused) == ("failed", "no", False)
    run.append(RunStarting(time=2.0))
    summary = reader.read()
    assert (summary.starting, summary.ending, summary.message, summary.step) == (True, "", "", 4)
    write(tmp_path, {**STAGE, "step": 4})
    assert (reader.read().ending, reader.read().message, reader.read().starting) == ("", "", False)
    write(tmp_path, {"kind": "finished", "model": "m"})
    assert SummaryReader(run).read() == reader.read()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = [
    "starting",
    "stage",
    "step",
    "progress",
    "validated",
    "sample",
    "command",
    "measured",
    "note",
    "finished",
    "stopped",
    "failed",
]
FIELDS = [
    "stage",
    "step",
    "total",
    "loss",
    "rate",
    "norm",
    "seconds",
    "memory",
    "values",
    "message",
    "model",
    "name",
    "time",
]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(FIELDS), junk).flatmap(
            lambda event: st.sampled_from(KINDS).map(lambda kind: {**event, "kind": kind})
        )
        | st.binary(max_size=20),
        max_size=8,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_line_breaks_a_reader(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any] | bytes]) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    with run.events.open("wb") as stream:
        for line in lines:
            stream.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
    summary = SummaryReader(run).read()
    assert summary.offset == run.events.stat().st_size
    json.loads(json.dumps(summary.model_dump(mode="json"), allow_nan=False))
    CurveReader(run).read().model_dump_json()


def test_lines_are_read_in_pieces_and_none_is_lost(tmp_path: Path) -> None:
    run = write(tmp_path, *({"kind": "note", "message": "x" * number} for number in range(200)), b'{"half')
    found, offset = [], 0
    while True:
        lines, reached = read_lines(run, offset, limit=100)
        if reached == offset:
            break
        assert reached - offset < 500
        found, offset = found + lines, reached
    assert [len(line["message"]) for line in found] == list(range(200))
    assert offset == run.events.stat().st_size - len(b'{"half')


@pytest.mark.parametrize("size", [0, 1, 70_000, 200_000])
def test_who_sits_down_cuts_off_a_half_written_line(tmp_path: Path, size: int) -> None:
    run = write(tmp_path, STAGE, b"x" * size)
    whole = run.events.read_bytes()[: -size or None]
    with claim(run):
        assert run.events.read_bytes() == whole
        sitting = last_sitting(run)
        assert sitting is not None
        assert (sitting.offset, sitting.process() is None) == (len(whole), False)


def test_presets_are_valid_beside_a_data_set() -> None:
    found = presets()
    assert [preset.name for preset in found][:2] == ["quick-style", "character"]
    for preset in found:
        method = {"data": {}, **preset.config["method"]}
        method["data"] = {**method["data"], "path": "/pictures"}
        TrainingConfig.model_validate({"name": "x", **preset.config, "method": method})
        assert preset.title
        assert preset.description
    assert len(found) == len(list(PRESETS.iterdir()))


@pytest.mark.parametrize("text", ["title = 1", "title = ", 'title = "x"'])
def test_a_broken_preset_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "1-odd.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"1-odd\.toml"):
        presets(tmp_path)
