"""Recipes and run folders, both without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import SettingsError, TrainingError
from studio.schema.training import ScratchMethod, load_training_config
from studio.trainer import TrainingSession
from studio.training.runs import (
    COMMANDS,
    Measured,
    RunFinished,
    RunFolder,
    StageProgress,
    prepare_run,
    read_events,
    worker_command,
)
from studio.training.sitting import claim

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = """
name = "tiny"
seed = 3
[method]
kind = "scratch"
[method.diffusion]
steps = 10
batch = 4
"""


def recipe(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["sprout.toml", "sprout-further.toml"])
def test_the_shipped_recipe_is_valid(name: str) -> None:
    config = load_training_config(REPOSITORY / "recipes" / name)
    assert config.name == "sprout-v1"
    assert config.export_to == "checkpoints/sprout-v1"
    assert isinstance(config.method, ScratchMethod)
    assert bool(config.method.start) == (name == "sprout-further.toml")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("steps = 10", "steps = 0"), "method.scratch.diffusion.steps = 0"),
        (("batch = 4", "batches = 4"), "batches"),
        (('kind = "scratch"', 'kind = "magic"'), "magic"),
        (('name = "tiny"', 'name = "../x"'), "../x"),
        (("seed = 3", "seed = -1"), "seed = -1"),
        (
            ("[method.diffusion]", "[method.unet]\nchannels = [32, 50]\nattention = [true, true]\n[method.diffusion]"),
            "multiples of 8",
        ),
        (
            ("[method.diffusion]", "[method.unet]\nchannels = [32, 64]\nattention = [true]\n[method.diffusion]"),
            "must agree",
        ),
        (("steps = 10", "steps = "), "not valid TOML"),
    ],
)
def test_a_bad_recipe_is_refused_with_file_field_and_value(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    path = recipe(tmp_path, RECIPE.replace(*change))
    with pytest.raises(SettingsError) as caught:
        load_training_config(path)
    assert named in caught.value.message and str(path) in caught.value.message


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_training_config(tmp_path / "none.toml")


def test_the_same_recipe_resumes_its_run_also_with_more_steps(tmp_path: Path) -> None:
    first = prepare_run(recipe(tmp_path), tmp_path / "runs")
    first.request_stop()
    longer = prepare_run(recipe(tmp_path, RECIPE.replace("steps = 10", "steps = 20")), tmp_path / "runs")
    assert longer.path == first.path
    assert longer.config().method.diffusion.steps == 20
    assert not longer.stop_requested()
    other = prepare_run(recipe(tmp_path, RECIPE.replace("seed = 3", "seed = 4")), tmp_path / "runs")
    assert other.path != first.path


def test_a_recipe_whose_run_is_being_trained_touches_nothing_of_it(tmp_path: Path) -> None:
    run = prepare_run(recipe(tmp_path), tmp_path / "runs")
    frozen = (run.path / "config.json").read_bytes()
    run.ask("pause")
    with claim(run), pytest.raises(TrainingError, match="is being trained already"):
        TrainingSession(recipe(tmp_path, RECIPE.replace("steps = 10", "steps = 20")), tmp_path / "runs")
    assert run.asked("pause") and (run.path / "config.json").read_bytes() == frozen


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no run folder"):
        RunFolder(tmp_path).config()


def test_events_are_read_from_an_offset_and_a_half_written_line_waits(tmp_path: Path) -> None:
    run = prepare_run(recipe(tmp_path), tmp_path / "runs")
    assert read_events(run) == ([], 0)
    written = [
        StageProgress(time=1.0, stage="diffusion", step=5, total=10, per_second=2.0, eta_s=2.5, values={"loss": 0.5}),
        Measured(time=2.0, stage="autoencoder", values={"psnr_db": 30.0}),
    ]
    for event in written:
        run.append(event)
    events, offset = read_events(run)
    assert events == written
    whole = RunFinished(time=3.0, model="m").model_dump_json()
    with run.events.open("a") as stream:
        stream.write(whole[:10])
    assert read_events(run, offset) == ([], offset)
    with run.events.open("a") as stream:
        stream.write(whole[10:] + "\n")
    assert read_events(run, offset)[0] == [RunFinished(time=3.0, model="m")]


def test_the_worker_command_names_the_run(tmp_path: Path) -> None:
    run = prepare_run(recipe(tmp_path), tmp_path / "runs")
    worker = ["-m", "studio.training.worker", str(run.path)]
    assert worker_command(run, "python", 2) == ["python", *worker, "--device", "auto", "--threads", "2"]
    assert worker_command(run, "python", device="cpu") == ["python", *worker, "--device", "cpu"]


def test_several_processes_are_started_by_torchrun_and_are_the_same_run(tmp_path: Path) -> None:
    """Not by `accelerate launch`, which starts one on a CPU whatever it is told."""
    alone = prepare_run(recipe(tmp_path), tmp_path / "runs")
    shared = prepare_run(recipe(tmp_path, RECIPE.replace("seed = 3", "seed = 3\nprocesses = 2")), tmp_path / "runs")
    assert shared.path == alone.path
    start = [
        "python",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "studio.training.worker",
    ]
    assert worker_command(shared, "python")[:7] == start


def test_wishes_are_put_into_the_control_folder_and_struck_off_at_the_next_sitting(tmp_path: Path) -> None:
    run = prepare_run(recipe(tmp_path), tmp_path / "runs")
    for command in COMMANDS:
        assert not run.asked(command)
        run.ask(command)
        assert run.asked(command)
    again = prepare_run(recipe(tmp_path), tmp_path / "runs")
    assert [command for command in COMMANDS if again.asked(command)] == []


def test_run_folders_can_be_read_without_torch() -> None:
    code = "import sys, studio.training.runs, studio.schema.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
