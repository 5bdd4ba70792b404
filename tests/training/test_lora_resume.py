"""Stopped, killed and shared: the finished file is the same to the bit, and two processes do what one does."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import TrainingError
from studio.training.runs import RunFolder
from tests.tiny_models import read_header
from tests.training.miniature import eager_polling
from tests.training.tuning import events, run_in, settings, studio, train

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000", "CUDA_VISIBLE_DEVICES": ""}
CONFIG: dict[str, Any] = settings(
    text_encoder=True,
    steps=20,
    data={"path": "pictures", "resolution": 64, "flip": True, "shuffle": True, "caption_dropout": 0.2},
    network={"rank": 2, "dropout": 0.2},
    optimizer={"learning_rate": 3e-3, "accumulate": 2},
    rate={"name": "cosine"},
    loss={"noise_offset": 0.05},
    ema_decay=0.8,
    validation={"every": 4, "patience": 50},
    samples={"prompts": ["a fox"], "every": 10, "steps": 1},
) | {"save_minutes": 1e-9}
KILLS = (
    "latents:3", "sample:1", "step:3", "state:2", "manifest:2", "rename:3", "optimizer:2", "validation:1", "step:9", "after:sample:1",
    "result:1", "after:result:1", "after:place:1", "told:1",
)  # fmt: skip


def sittings(run: RunFolder, *points: str) -> None:
    command = [sys.executable, "-m", "tests.training.sittings", str(run.path), *points]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRON, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def new(root: Path, config: dict[str, Any] = CONFIG, **keywords: Any) -> RunFolder:
    return run_in(studio(root, "sprout", **keywords), config)


def digest(run: RunFolder) -> tuple[str, dict[str, str]]:
    """SHA-256 of the finished file, and its metadata, to be read where the first differs."""
    files = list((run.root / "loras").glob("*.safetensors"))
    assert [file.name for file in files] == ["tiny.safetensors"], files
    return hashlib.sha256(files[0].read_bytes()).hexdigest(), read_header(files[0])["__metadata__"]


def at_step(run: RunFolder, step: int) -> Callable[[], bool]:
    """Says yes once `step` steps are done."""
    return lambda: any(event.step >= step for event in events(run, "step"))


@pytest.mark.slow
def test_killed_at_every_kind_of_moment_the_file_is_equal_to_the_bit(tmp_path: Path) -> None:
    whole, broken = new(tmp_path / "whole"), new(tmp_path / "broken")
    sittings(whole)
    sittings(broken, *KILLS)
    assert digest(broken) == digest(whole)
    losses = {event.step: event.loss for event in events(whole, "step")}
    assert len(losses) == 20
    assert {event.step: event.loss for event in events(broken, "step")} == losses
    assert len(events(broken, "step")) > 20  # steps after the last checkpoint were made again
    validated = {event.step: event.loss for event in events(whole, "validated")}
    assert {event.step: event.loss for event in events(broken, "validated")} == validated
    for file in sorted(whole.samples.iterdir()):
        assert (broken.samples / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_stopped_at_any_step_and_resumed_is_equal_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.training.context import StopTraining, TrainingContext
    from studio.training.methods import run_method

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    config = settings(steps=5, network={"rank": 2, "dropout": 0.1}, validation={"share": 0}) | {"save_minutes": 100}
    whole, broken = new(tmp_path / "whole", config), new(tmp_path / "broken", config)
    with eager_polling():
        train(whole)
        for step in range(1, 5):
            with pytest.raises(StopTraining):
                run_method(TrainingContext(broken.config(), broken, at_step(broken, step)))
        train(broken)
    assert digest(broken) == digest(whole)
    assert [(event.stage, event.step) for event in events(broken, "stage") if event.stage == "train"] == [
        ("train", step) for step in range(5)
    ]


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """The same global batch, dropout included; sums in another order are all that differs."""
    config = settings(steps=6, batch=2, network={"rank": 2, "dropout": 0.2}, validation={"every": 3, "share": 0.4})
    alone, shared = new(tmp_path / "alone", config), new(tmp_path / "shared", {**config, "processes": 2})
    train(alone)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "studio.training.worker", str(shared.path), "--threads", "1", "--device", "cpu"]
    team = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**ENVIRON, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in range(2)
    ]
    assert [member.wait(timeout=250) for member in team] == [0, 0]
    for kind in ("step", "validated"):
        one, two = events(alone, kind), events(shared, kind)
        assert [event.step for event in two] == [event.step for event in one]
        assert max(abs(left.loss - right.loss) for left, right in zip(one, two, strict=True)) < 1e-5
    assert json.loads(shared.result.read_text())["name"] == "tiny"


def test_a_run_for_two_that_is_alone_says_so(tmp_path: Path) -> None:
    """`accelerate launch --num_processes 2` on a CPU silently starts one process; this must not pass for two."""
    run = new(tmp_path / "s", {**settings(), "processes": 2})
    command = [sys.executable, "-m", "studio.training.worker", str(run.path), "--device", "cpu"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=ENVIRON, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert "2 processes were to share this run, 1 came together" in done.stderr


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    from studio.training.context import TrainingContext
    from studio.training.methods import run_method
    from studio.training.parallel import Team

    run = new(tmp_path / "s", settings(batch=3))
    with pytest.raises(TrainingError, match="batch of 3 cannot be shared evenly by 2"):
        run_method(TrainingContext(run.config(), run, team=Team(0, 2)))


@pytest.mark.parametrize("changed", ["data", "base"])
def test_resuming_with_other_pictures_or_another_base_is_refused(changed: str, tmp_path: Path) -> None:
    from studio.training.context import StopTraining, TrainingContext
    from studio.training.methods import run_method

    run = new(tmp_path / "s", settings(validation={"share": 0}))
    with eager_polling(), pytest.raises(StopTraining):
        run_method(TrainingContext(run.config(), run, at_step(run, 2)))
    if changed == "data":
        (run.root / "pictures" / "0.txt").write_text("something else")
    else:
        from tests.tiny_models import tiny_components

        file = next((run.root / "checkpoints" / "tiny" / "unet").glob("*.safetensors"))
        from safetensors.torch import save_file

        save_file({key: value * 1.01 for key, value in tiny_components("sprout")["unet"].state_dict().items()}, file)
    with pytest.raises(TrainingError, match=f"The {changed} has changed since step 2"):
        train(run)
