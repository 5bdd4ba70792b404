"""A whole judge run in miniature: broken off and resumed it makes the same bytes as unbroken, learns, and its judge can be loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.training.context import StopTraining
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.methods.judge.judge import Judge
from studio.training.runs import Measured, RunFolder, StageProgress, read_events
from tests.training.miniature import after, eager_polling, new_run, sit

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")

METHOD = {
    "kind": "judge",
    "data": {"pictures": 24, "unseen": 12, "side": 32},
    "channels": [8, 16],
    "steps": 6,
    "batch": 4,
    "warmup": 2,
}


@pytest.fixture(scope="module", autouse=True)
def _eager() -> Iterator[None]:
    with eager_polling():
        yield


def config(**changes: Any) -> dict[str, Any]:
    return {"name": "tiny", "seed": 5, "precision": "fp32", "save_minutes": 1e-9, "method": METHOD | changes}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = new_run(tmp_path_factory.mktemp("judge") / "run", config())
    sit(run)
    return run


def weights(run: RunFolder) -> bytes:
    return (run.model / "model.safetensors").read_bytes()


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(whole: RunFolder, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", config())
    with pytest.raises(StopTraining):
        sit(run, after(4))  # the pool is drawn in one step, so this is in step 3 of the training
    sit(run)
    assert weights(run) == weights(whole)
    stages = [(event.stage, event.step) for event in read_events(run)[0] if event.kind == "stage"]
    assert stages == [("draw", 0), ("judge", 0), ("judge", 3)]


def test_its_judge_is_loaded_and_its_accuracy_stands_in_events_and_folder(whole: RunFolder) -> None:
    (measured,) = [event for event in read_events(whole)[0] if isinstance(event, Measured)]
    assert {"object", "objects", "count", "style", "object_painted"} <= measured.values.keys()
    stated = json.loads((whole.model / "config.json").read_text())["accuracy"]
    assert {name: share["right"] / share["of"] for name, share in stated.items()} == pytest.approx(measured.values)
    (sight,) = Judge.load(whole.model).look([np.zeros((32, 32, 3), dtype=np.uint8)])
    assert float(sight.shares.sum()) == pytest.approx(1, abs=1e-3)


def test_it_learns(tmp_path: Path) -> None:
    data = {"pictures": 16, "unseen": 8, "side": 32}
    run = new_run(
        tmp_path / "run", config(data=data, channels=[32, 32], steps=80, batch=16, warmup=5, learning_rate=1e-2)
    )
    sit(run)
    progress = [event for event in read_events(run)[0] if isinstance(event, StageProgress) and event.stage == "judge"]
    losses = [event.values["loss"] for event in progress]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert np.mean([event.values["right"] for event in progress[-5:]]) > 0.5
