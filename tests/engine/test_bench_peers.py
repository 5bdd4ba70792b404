"""`bench generate --peers`: what is compared, when a time counts, and what is made of the seconds. The figures are no matter for tests."""

from __future__ import annotations

import importlib
import json
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

generate = importlib.import_module("bench.generate")
chart, client, command, contender, forwards, goals, parity, report, requests, runner, workloads = (
    importlib.import_module(f"bench.peers.{name}")
    for name in [
        "chart",
        "client",
        "command",
        "contender",
        "forwards",
        "goals",
        "parity",
        "report",
        "requests",
        "runner",
        "workloads",
    ]
)
REPOSITORY = Path(__file__).resolve().parents[2]


def entry(seconds: float, **changes: Any) -> dict[str, Any]:
    spread = {"median": seconds, "min": seconds, "max": seconds, "runs": 6}
    return {
        "dtype": "bfloat16", "unet_rel_l2": 0.012, "picture_max_difference": 7, "picture_mean_difference": 0.76, "peak_gib": 2.5,
        "cpu_seconds_a_picture": spread, "wall_seconds_a_picture": spread, **changes,
    }  # fmt: skip


def result(**contenders: dict[str, Any]) -> dict[str, Any]:
    versus = {
        "diffusers-bf16": {"times_as_fast": 1.2, "times_as_fast_wall": 1.2, "peak_memory": 0.9},
        "floor": {"overhead_percent_cpu": 1.5, "overhead_percent_wall": 2.0},
    }
    found = {
        "workload": {"title": "256 px, 8 steps", "models": ["sd15-a"], "loras": [""]},
        "contenders": {"studio": entry(12.0), "diffusers-bf16": entry(14.4), **contenders},
        "studio_against": versus,
        "load": [0.2, 1.1],
    }
    return {
        "date": "2026-01-01", "machine": {"platform": "here", "cores": 2, "processor": "one"}, "versions": {"torch": "2"},
        "workloads": {"W1": found}, "page": {"seconds": {"median": 3.0}, "cpu_seconds": {"median": 2.5}},
        "first_preview": {
            "goal_ms": 50.0,
            "known_prompts": {"first_preview_seconds": 1.6, "step_seconds": 1.57, "beyond_one_step_ms": 30.0, "runs": 5},
        },
    }  # fmt: skip


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


def proof(dtype: str = "float32", unet: float = 1.0, picture: int = 100) -> Any:
    return parity.Proof(dtype, np.full((2, 4, 8, 8), unet, np.float32), np.full((1, 8, 8, 3), picture, np.uint8))


def test_errors_are_told_beside_what_is_allowed() -> None:
    facts = parity.compare(proof(picture=101, unet=1.00005), proof())
    assert facts["picture_max_difference"] == 1 and facts["unet_rel_l2"] == pytest.approx(5e-5, rel=0.05)
    assert parity.compare(proof("bfloat16", unet=1.015, picture=110), proof())["picture_max_difference"] == 10


@pytest.mark.parametrize(
    "found",
    [
        proof(unet=1.001),
        proof(unet=float("nan")),
        proof(picture=102),
        proof("bfloat16", unet=1.03),
        proof("bfloat16", picture=120),
        parity.Proof("float32", np.ones((2, 4, 4, 4), np.float32), np.zeros((1, 8, 8, 3), np.uint8)),
        parity.Proof("float32", np.ones((2, 4, 8, 8), np.float32), np.full((1, 16, 16, 3), 100, np.uint8)),
    ],
)
def test_who_paints_something_else_is_not_timed(found: Any) -> None:
    with pytest.raises(parity.Unequal):
        parity.compare(found, proof())


def test_the_bare_calls_have_no_picture_to_compare() -> None:
    none = parity.Proof("float32", proof().unet, np.zeros(0, np.uint8))
    assert "picture_max_difference" not in parity.compare(none, proof())


# -- pairs -------------------------------------------------------------------------------------------------------------


class Fake:
    """A contender's process that answers at once."""

    asked: ClassVar[list[str]] = []

    def __init__(self, name: str, root: Path, checkout: Path | None) -> None:
        self.name, self._root = name, root

    def ask(self, **question: Any) -> dict[str, Any]:
        if question["do"] == "prove":
            shift = 50 if self.name == "comfyui" else 0
            np.savez(question["out"], unet=proof().unet, pictures=proof(picture=100 + shift).pictures)
            return {"dtype": "float32", "seconds": 1.0}
        Fake.asked.append(self.name)
        seconds = {"studio": 2.0, "diffusers-bf16": 3.0, "floor": 1.0}.get(self.name, 8.0)
        pictures = 0 if self.name == "floor" else 4
        models = 0.8 * seconds if self.name == "studio" else None
        return {"cpu": seconds, "wall": 2 * seconds, "models": models, "pictures": pictures, "peak_bytes": 2**30}

    def close(self) -> None: ...


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.asked = []
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
    assert "+1.5 % above it" in lines[5] and "no picture" in lines[5]


def test_figures_stand_beside_their_goals() -> None:
    words = report.figures(result(studio=entry(12.0, percent_beyond_model_calls=0.21), floor=entry(11.9)))
    assert "0.21 % of what the model calls of the same process take (goal: 0.5 %)" in words
    assert "a step (1.57 s) and 30 ms (goal: 50 ms)" in words
    assert (
        "all else add +1.5 %" in words
        and "0.90 of plain diffusers" in words
        and "3.00 s, 2.50 s of the processor (goal: 4 s)" in words
    )


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


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_checkout_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generate.main(["--peers", "--comfyui", str(tmp_path)])
    assert "no checkout of ComfyUI: it has no nodes.py" in capsys.readouterr().err


def test_figures_of_tiny_models_are_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--peers", "--quick", "--save"]) == 2
    assert "no figures" in capsys.readouterr().err


def test_what_comfyui_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "options.py").write_text("import a_package_that_is_not_there")
    process = client.Process("comfyui", tmp_path, tmp_path)
    try:
        with pytest.raises(
            client.ContenderFailed, match=r"package a_package_that_is_not_there, which .*requirements\.txt"
        ):
            process.ask(do="run", jobs=[])
    finally:
        process.close()


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch, fakes: None, tmp_path: Path) -> list[str]:
    """What asks for a run to be gone on with, after its first workload was written."""
    monkeypatch.setattr(command, "make_files", lambda plan, root: None)
    monkeypatch.setattr(command, "first_preview", lambda root, quick: {})
    asked = ["--peers", "--quick", "--contenders", "floor", "--out", str(tmp_path / "peers.json")]
    assert generate.main([*asked, "--workloads", "W2"]) == 0
    return [*asked, "--workloads", "W2", "W6"]


def test_a_run_goes_on_where_it_was_cut_off(cut_off: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Fake.asked.clear()
    capsys.readouterr()
    assert generate.main(cut_off) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["workloads"]) == {"W2", "W6"} and Fake.asked == ["studio", "floor", "floor", "studio"]
    assert json.loads(Path(cut_off[5]).read_text()) == found
    Fake.asked.clear()
    assert generate.main(cut_off) == 0 and Fake.asked == [], "all of it is there"
    assert generate.main([*cut_off, "--contenders", "diffusers-bf16", "floor"]) == 0
    assert Fake.asked.count("diffusers-bf16") == 4, "who was missing is measured, and the whole workload with it"
    Fake.asked.clear()
    assert generate.main([*cut_off, "--contenders", "diffusers-fp32"]) == 0
    kept = json.loads(Path(cut_off[5]).read_text())["workloads"]["W2"]
    assert set(kept["contenders"]) == {"studio", "floor", "diffusers-bf16", "diffusers-fp32"}, (
        "others are left as they were"
    )
    assert set(kept["studio_against"]) == set(kept["contenders"]) - {"studio"}


def test_a_run_does_not_go_on_elsewhere(
    cut_off: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = command.machine()
    monkeypatch.setattr(command, "machine", lambda: {**here, "cores": 99})
    assert generate.main(cut_off) == 2
    assert f"measured with cores {here['cores']}, and this is 99" in capsys.readouterr().err


def test_a_cards_result_is_not_gone_on_with(cut_off: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(cut_off[5]).write_text('{"bench": "generate --peers --device cuda"}')
    assert generate.main(cut_off) == 2
    assert "no result of generate --peers that --out has written" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_on_tiny_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--peers", "--quick", "--workloads", "W1", "--contenders", "floor"]) == 0
    found = json.loads(capsys.readouterr().out)
    contenders = found["workloads"]["W1"]["contenders"]
    assert set(contenders) == {"studio", "floor"}
    assert all(each["cpu_seconds_a_picture"]["runs"] >= 2 for each in contenders.values())
    assert found["first_preview"]["known_prompts"]["runs"] == 1
