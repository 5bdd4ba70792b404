"""What a plot can choose from, what it comes to, and its sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.app import Studio
from studio.errors import NotFound
from studio.infotext import read_picture
from studio.plots.axes import FIELDS, axis_values
from studio.plotting import PlotSize, job_sheet, plot_choices, plot_size
from studio.schema.request import RunOptions, make_request
from tests.api.stand_in import make_studio


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = make_studio(tmp_path)
    made.start()
    yield made
    made.close()


def sized(studio: Studio, **fields: Any) -> PlotSize:
    return plot_size(studio, make_request({"prompt": "a fox", **fields}))


def test_the_size_is_that_of_each_axis(studio: Studio) -> None:
    plot = {"x_type": "CFG Scale", "x_values": "5-9 (+2)", "z_type": "Steps", "z_values": "1-10 [4]"}
    assert sized(studio, plot=plot) == PlotSize((3, 1, 4))
    assert sized(studio, plot=plot).pictures == 12
    assert sized(studio) == sized(studio, plot={"x_values": "1, 2"}) == PlotSize((0, 0, 0))


@pytest.mark.parametrize(
    "fields, field, words",
    [
        ({"plot": {"x_type": "CFG Scale", "x_values": "5, high"}}, "plot.x_values", "'high' is no number"),
        ({"plot": {"y_type": "Steps"}}, "plot.y_values", "there are no values"),
        ({"plot": {"x_type": "Sampler", "x_values": "Euler, Foo"}}, "sampler", "no sampler named 'Foo'"),
        ({"plot": {"x_type": "Hires steps", "x_values": "3"}}, "plot.x_values", "no second pass"),
        ({"plot": {"x_type": "Seed", "x_values": "1-401"}}, "plot.x_values", "401 pictures; at most 400"),
        ({"batch_count": 2, "plot": {"x_type": "Steps", "x_values": "3"}}, "batch_count", "one picture in each cell"),
    ],
)
def test_what_cannot_be_is_said_in_words(studio: Studio, fields: dict[str, Any], field: str, words: str) -> None:
    found = sized(studio, **fields)
    assert (found.pictures, found.field) == (0, field)
    assert words in found.problem


def test_all_choices_are_values_of_their_axes(studio: Studio) -> None:
    choices = plot_choices(studio)
    worded = {kind for kind, (read, _) in FIELDS.items() if read.__name__ in ("words", "switches")} | {"Styles"}
    assert set(choices) == worded
    assert choices["Checkpoint name"] == ["sprout", "oak/old"]
    assert choices["Refiner checkpoint"][0] == "None"
    assert choices["VAE"] == ["Automatic", "sharp"]
    assert choices["RNG source"] == ["CPU", "GPU", "NV"]
    for kind, names in choices.items():
        if names:
            line = ", ".join(f'"{name}"' for name in names)
            assert [label for label, _ in axis_values(kind, line)] == names
    for kind in (
        "Sampler",
        "Schedule type",
        "Checkpoint name",
        "VAE",
        "RNG source",
        "FP8 mode",
        "SGM noise multiplier",
    ):
        line = ", ".join(choices[kind])
        assert sized(studio, plot={"x_type": kind, "x_values": line}).pictures == len(choices[kind])


def test_the_sheet_of_a_plot_is_there_without_a_file(studio: Studio) -> None:
    plot = {"x_type": "Seed", "x_values": "-1, 4"}
    asked = make_request({"prompt": "a fox", "width": 64, "height": 64, "steps": 2, "plot": plot})
    job = studio.submit(asked, RunOptions(save=False))
    done = studio.queue.wait(job.id, 20)
    assert (done.status, done.grid, len(done.images)) == ("done", None, 2)
    text = read_picture(job_sheet(studio, done)).infotext or ""
    assert f'Fixed X Values: "{done.images[0].seed}, 4"' in text


def test_jobs_without_any_sheet(studio: Studio) -> None:
    job = studio.submit(make_request({"width": 64, "height": 64, "steps": 1}), RunOptions(save=False))
    done = studio.queue.wait(job.id, 20)
    with pytest.raises(NotFound, match="has no grid"):
        job_sheet(studio, done)
