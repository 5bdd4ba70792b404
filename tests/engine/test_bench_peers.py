"""`bench generate --peers`: what is compared, when a time counts, and what is made of the seconds. The figures are no matter for tests."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.peers import chart, contender, forwards, goals, parity, report, requests, runner, workloads
from tests.engine.peers import Fake, entry, proof, result

REPOSITORY = Path(__file__).resolve().parents[2]


# -- what is painted ---------------------------------------------------------------------------------------------------


def test_workloads_are_what_the_table_says() -> None:
    assert {name: each.pictures for name, each in workloads.WORKLOADS.items()} == {
        "W1": 1, "W2": 4, "W3": 1, "W4": 8, "W5": 4, "W6": 4, "W7": 1,
    }  # fmt: skip
    turns = [job.model for job in workloads.WORKLOADS["W5"].jobs(1)]
    assert turns == ["sd15-a", "sd15-b", "sd15-a", "sd15-b"]
    assert [job.lora for job in workloads.WORKLOADS["W6"].jobs(1)] == ["lora-a", "lora-b", "lora-a", "lora-b"]


def test_a_run_finds_no_prompt_of_another_but_keeps_its_own() -> None:
    one, other = (workloads.WORKLOADS["W5"].jobs(number) for number in (1, 2))
    assert len({job.prompt for job in one}) == len({job.negative for job in one}) == 1
    assert one[0].prompt != other[0].prompt and one[0].negative != other[0].negative


def test_jobs_travel_as_json() -> None:
    job = workloads.WORKLOADS["W4"].jobs(3)[0]
    assert workloads.Job.parse(json.loads(json.dumps(asdict(job)))) == job
    assert job.batches == [[1000 + i] for i in range(8)]
    assert workloads.WORKLOADS["W2"].jobs(3)[0].batches == [[1000, 1001, 1002, 1003]]


def test_the_programs_request_has_the_jobs_seeds_and_the_schedule_that_diffusers_equals(tmp_path: Path) -> None:
    job = workloads.Job("sprout-v1", "a", "b", seed=5, side=64, steps=2, batch_size=2, batch_count=2)
    asked = requests.asked(job, requests.Models(tmp_path))
    assert asked.seeds == (5, 6, 7, 8) == tuple(seed for batch in job.batches for seed in batch)
    assert (asked.sampler, asked.schedule, asked.cfg_scale, asked.model.name) == ("Euler", "Uniform", 7.0, "sprout-v1")
    assert asked.options.preview_every == 1


# -- when a time counts ------------------------------------------------------------------------------------------------


def test_errors_are_told_beside_what_is_allowed() -> None:
    facts = parity.compare(proof(picture=101, unet=1.00005), proof())
    assert facts["picture_max_difference"] == 1 and facts["unet_rel_l2"] == pytest.approx(5e-5, rel=0.05)
    short = parity.compare(proof("bfloat16", unet=1.015, picture=110), proof())
    assert (short["picture_max_difference"], short["picture_max_allowed"]) == (10, None)
    with pytest.raises(parity.Unequal, match=r"20\.00 on average; 16 on average are allowed"):
        parity.compare(proof("bfloat16", picture=120), proof())


@pytest.mark.parametrize(
    "found",
    [
        proof(unet=1.001),
        proof(unet=float("nan")),
        proof(picture=102),
        proof("bfloat16", unet=1.03),
        proof("bfloat16", picture=120),
        parity.Proof("float32", np.ones((2, 4, 4, 4), np.float32), np.zeros((1, 8, 8, 3), np.uint8), ""),
        parity.Proof("float32", np.ones((2, 4, 8, 8), np.float32), np.full((1, 16, 16, 3), 100, np.uint8), ""),
    ],
)
def test_who_paints_something_else_is_not_timed(found: Any) -> None:
    with pytest.raises(parity.Unequal):
        parity.compare(found, proof())


def test_the_bare_calls_have_no_picture_to_compare() -> None:
    none = parity.Proof("float32", proof().unet, np.zeros(0, np.uint8), "2.13")
    assert "picture_max_difference" not in parity.compare(none, proof())


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.asked, Fake.dies = [], set()
    monkeypatch.setattr(runner, "Process", Fake)


@pytest.mark.usefixtures("fakes")
def test_pairs_run_abba_and_are_compared_by_their_own_runs(tmp_path: Path) -> None:
    plan = runner.Plan([workloads.WORKLOADS["W2"]], ("diffusers-bf16", "floor"), 2)
    found = runner.measure(plan, tmp_path)["W2"]
    ours, peer, floor = "studio", "diffusers-bf16", "floor"
    assert Fake.asked == [ours, peer, peer, ours] * 2 + [ours, floor, floor, ours] * 2
    assert found["contenders"][ours]["cpu_seconds_a_picture"] == {"median": 0.5, "min": 0.5, "max": 0.5, "runs": 8}
    assert found["studio_against"][peer] == {"times_as_fast": 1.5, "times_as_fast_wall": 1.5, "peak_memory": 1.0}
    assert found["studio_against"][floor]["overhead_percent_cpu"] == 100.0
    assert found["contenders"][ours]["percent_beyond_model_calls"] == 25.0
    assert "percent_beyond_model_calls" not in found["contenders"][peer]


@pytest.mark.usefixtures("fakes")
def test_one_that_paints_something_else_has_an_error_and_no_time(tmp_path: Path) -> None:
    plan = runner.Plan([workloads.WORKLOADS["W2"]], ("diffusers-fp32", "comfyui"), 1, checkout=tmp_path)
    found = runner.measure(plan, tmp_path)["W2"]
    assert "50 of 255" in found["contenders"]["comfyui"]["error"]
    assert "cpu_seconds_a_picture" not in found["contenders"]["comfyui"]
    assert "comfyui" not in Fake.asked
    assert found["contenders"]["diffusers-fp32"]["picture_max_difference"] == 0


def test_float32_is_spared_where_much_is_painted_unless_it_is_asked_for() -> None:
    names = contender.CONTENDERS[1:]
    plan = runner.Plan(list(workloads.WORKLOADS.values()), names, 1, sparing=True)
    beside = {each.name: tuple(plan.beside(each)) for each in plan.workloads}
    few = ("diffusers-bf16", "floor")
    assert beside == {"W1": names, "W2": few, "W3": few, "W4": few, "W5": few, "W6": few, "W7": names}
    assert runner.Plan(plan.workloads, names, 1).beside(workloads.WORKLOADS["W4"]) == list(names)


@pytest.mark.usefixtures("fakes")
def test_in_float32_the_program_is_compared_with_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner.exact(tmp_path)["picture_max_difference"] == 0
    monkeypatch.setattr(runner, "EXACT", "comfyui")  # which paints something else here
    with pytest.raises(parity.Unequal, match="50 of 255"):
        runner.exact(tmp_path)


@pytest.mark.usefixtures("fakes")
def test_one_that_makes_too_few_pictures_is_not_measured(tmp_path: Path) -> None:
    found = runner.measure(runner.Plan([workloads.WORKLOADS["W4"]], ("diffusers-fp32",), 1), tmp_path)["W4"]
    assert "4 pictures of 8" in found["contenders"]["diffusers-fp32"]["error"]


def test_seconds_in_models_are_those_of_the_outermost_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def encode(self, work: int) -> int:
            return self.forward(work)

        def forward(self, work: int) -> int:
            if work < 0:
                raise ValueError("no work")
            now[0] += work
            return work

    now = [0.0]
    monkeypatch.setattr(forwards, "CALLS", ((Model, "encode"), (Model, "forward")))
    monkeypatch.setattr(forwards.time, "thread_time", lambda: now[0])
    counted = forwards.Forwards()
    assert Model().encode(3) == 3
    now[0] += 10
    assert Model().forward(4) == 4
    with pytest.raises(ValueError, match="no work"):
        Model().forward(-1)
    assert Model().forward(5) == 5
    assert counted.seconds == 12


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_the_table_has_no_time_without_an_error() -> None:
    lines = report.table(
        result(comfyui={"error": "too | far\noff"}, floor=entry(11.9, picture_max_difference=None))
    ).splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, "the same cells in every row"
    assert (
        "14.40 (14.40 to 14.40, 6)" in lines[3]
        and "1.20x as fast" in lines[3]
        and "1.2e-02" in lines[3]
        and "7 of 255" in lines[3]
    )
    assert "not measured: too / far off" in lines[4]
    assert " 1.5 % above it" in lines[5] and "no picture" in lines[5]


def test_figures_stand_beside_their_goals() -> None:
    words = report.figures(result(studio=entry(12.0, percent_beyond_model_calls=0.21), floor=entry(11.9)))
    assert "0.21 % of what the model calls of the same process take (goal: 0.5 %)" in words
    assert "a step (1.57 s) and 30 ms (goal: 50 ms)" in words
    assert (
        "with previews, PNG and all else the program takes 1.5 % more processor time than the bare model calls of floor"
        in words
        and "0.90 of plain diffusers" in words
        and "3.00 s, 2.50 s of the processor (goal: 4 s)" in words
    )


def test_a_goal_stands_only_where_there_is_one() -> None:
    found = result(studio=entry(12.0, percent_beyond_model_calls=5.76))
    found["workloads"]["W7"] = found["workloads"].pop("W1")
    assert "W7: all else takes 5.76 % of what the model calls of the same process take\n" in report.figures(found)


def test_who_is_below_the_floor_is_said_to_be() -> None:
    """Its calls compute at every step what the engine computes once."""
    found = result(floor=entry(12.2))
    found["workloads"]["W1"]["studio_against"]["floor"]["overhead_percent_cpu"] = -0.84
    assert "| 0.8 % below it |" in report.table(found)
    assert "takes 0.8 % less processor time than the bare model calls of floor" in report.figures(found)


def test_code_and_processor_are_told_as_far_as_the_result_knows_them() -> None:
    found = result()
    assert "here, 2 cores (one), torch 2. One thread each" in report.conditions(found)
    found["machine"] |= {"family": 26, "model": 2, "flags": {"avx2": True, "amx_bf16": False}}
    found["code"] = {"commit": "0123456789abcdef", "dirty": True}
    words = report.conditions(found)
    assert "2 cores (one, family 26 model 2, with avx2), torch 2, commit 0123456789ab, changed since. One" in words


def test_another_torch_than_the_programs_is_told() -> None:
    torches = {"studio": "2.13.0+cpu", "floor": "2.13.0+cpu", "comfyui": "2.9.1+cpu"}
    words = report.conditions(result(**{name: entry(12.0, torch=torch) for name, torch in torches.items()}))
    assert "torch 2. comfyui ran with torch 2.9.1+cpu. One thread each" in words


def test_every_goal_stands_beside_what_was_measured() -> None:
    rows = goals.goals(
        {**result(studio=entry(12.0, percent_beyond_model_calls=0.61)), "exact": {"picture_max_difference": 1}}
    )
    assert "W1 | at least 1.15x | 1.20x | met |" in rows
    assert "W1 | at most 0.50 % | 0.61 % | missed |" in rows
    assert "beyond one step | at most 50 ms | 30 ms | met |" in rows
    assert "its own processor seconds | at most 4.00 s | 2.50 s | met |" in rows
    assert "of 255 | at most 1 | 1 | met |" in rows
    assert "ComfyUI's in the formats that it chooses, W1 | at least 2.80x | not measured | |" in rows
    assert len({line.count("|") for line in rows.splitlines()}) == 1, "the same cells in every row"
    wrong = goals.goals({**result(), "exact": {"error": "its picture is up to 3 of 255 off"}})
    assert "at most 1 | not measured: its picture is up to 3 of 255 off | |" in wrong


def test_the_chart_is_sound_and_its_bars_are_as_long_as_contenders_are_fast() -> None:
    tree = ET.fromstring(chart.draw(result(comfyui={"skipped": "why"})))
    name = "{http://www.w3.org/2000/svg}rect"
    lengths = {each.get("class"): float(each.get("width", 0)) for each in tree.iter(name)}
    assert lengths["peer"] / lengths["ours"] == pytest.approx(12 / 14.4, abs=0.01)
    assert "prefers-color-scheme: dark" in chart.draw(result())


def test_saving_rewrites_the_section_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "speed.md"
    page.parent.mkdir()
    text = (REPOSITORY / "docs" / "speed.md").read_text("utf-8")
    page.write_text(text, "utf-8")
    for _ in range(2):
        written = report.save(result(), "{}", "now", tmp_path)
        assert all(path.is_file() for path in written)
    after = page.read_text("utf-8")
    assert report.table(result()) in after and "Not measured yet" not in after
    before = text.split(report.BEGIN)[0]
    assert after.startswith(before) and after.split(report.END)[1] == text.split(report.END)[1]
    assert (page.parent / report.CHART).is_file()
    assert (tmp_path / "bench" / "results" / "peers-now.json").read_text() == "{}\n"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        report.rewritten("# Speed", "new")
