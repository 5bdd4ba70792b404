"""A model from nothing on a data set of the MNIST family: in miniature, on drawn 28x28 pictures, from the files to a picture by the product's engine."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.engine.runner import DiffusersEngine
from studio.errors import TrainingError
from studio.library import Library
from studio.paths import Paths
from studio.resolve import resolve
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.training import ScratchMethod, load_training_config
from studio.training.context import TrainingContext
from studio.training.data.formats.idx import FASHION
from studio.training.methods.scratch.gate import main as gate
from studio.training.methods.scratch.given import GivenLessons
from studio.training.methods.scratch.lessons import open_lessons
from studio.training.runs import RunFolder, read_events
from tests.training.data import drawn
from tests.training.miniature import eager_polling, sit

REPOSITORY = Path(__file__).resolve().parents[2]


def make_run(root: Path, path: str = "clothes", **data: Any) -> RunFolder:
    """A run of the shipped recipe with tiny networks and few steps, in the data folder ``root``."""
    recipe = load_training_config(REPOSITORY / "recipes" / "fashion-mnist.toml").model_dump(mode="json")
    recipe["export_to"] = ""
    method = recipe["method"]
    method["data"].update(path=path, **data)
    method["autoencoder"].update(channels=[8, 8, 8], steps=3, batch=2)
    method["text"].update(width=16, layers=1, reading_steps=3, reading_batch=4)
    method["unet"].update(channels=[8, 16, 16])
    method["diffusion"].update(steps=3, batch=3, warmup=1)
    folder = root / "outputs" / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(recipe))
    return RunFolder(folder)


def lessons(run: RunFolder) -> GivenLessons:
    found = open_lessons(TrainingContext(run.config(), run))
    assert isinstance(found, GivenLessons)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("studio")
    drawn.idx(root / "clothes", 60)
    run = make_run(root)
    with eager_polling():
        sit(run)
    return run


def test_the_recipe_asks_for_what_fits_the_data() -> None:
    method = load_training_config(REPOSITORY / "recipes" / "fashion-mnist.toml").method
    assert isinstance(method, ScratchMethod) and not method.start
    assert (method.data.path, method.data.captions, method.data.side) == ("datasets/fashion-mnist", 1, 64)


def test_all_three_networks_are_trained_and_the_classes_are_taught(trained: RunFolder) -> None:
    stages = [event.stage for event in read_events(trained)[0] if event.kind == "stage"]
    assert stages == ["autoencoder", "encode", "reading", "diffusion", "export"]
    measured = [event.values for event in read_events(trained)[0] if event.kind == "measured"]
    assert measured[0]["pictures"] == 3, "one in twenty of the 60 pictures is kept back"
    assert np.load(trained.path / "pool" / "latents.npy").shape == (57, 4, 16, 16)


def test_the_products_engine_paints_with_it(trained: RunFolder) -> None:
    root = trained.path.parents[2]
    (root / "checkpoints").mkdir()
    trained.model.rename(root / "checkpoints" / "clothes")
    library = Library(Paths(root))
    try:
        info = library.checkpoint("clothes")
        assert (info.problem, info.native_size) == (None, 64)
        request = GenerationRequest(prompt="Ankle boot", width=64, height=64, steps=2, seed=1, model="clothes")
        wanted = resolve(request, library, lambda: 1, options=RunOptions(save=False))
        events = list(DiffusersEngine("cpu").run(wanted, CancelToken()))
    finally:
        library.close()
    picture = next(event for event in events if isinstance(event, ImageReady))
    assert Image.open(io.BytesIO(picture.png)).size == (64, 64)


def test_pictures_captions_and_labels_belong_together(tmp_path: Path) -> None:
    drawn.idx(tmp_path / "clothes", 60)
    found = lessons(make_run(tmp_path))
    labels = found.labels()
    assert (found.count, found.heads, labels.shape) == (57, (10,), (57, 1))
    pictures = found.pictures(0, found.count)
    for index in range(found.count):
        (caption,) = found.captions(index)
        assert sorted(FASHION)[labels[index, 0]] == caption
        bright = pictures[index, :, 20].mean(axis=1) > 100  # the class has as many bright rows, of 28
        assert abs(bright.sum() / 64 - (1 + FASHION.index(caption)) / 28) < 0.03
    held = found.unseen(128)
    assert len(held) == 3 and not any((picture == other).all() for picture in held for other in pictures)


def test_captions_that_all_differ_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.training.methods.scratch.given.MOST_CLASSES", 9)
    drawn.idx(tmp_path / "clothes", 60)
    run = make_run(tmp_path, pictures=16)
    assert (lessons(run).heads, lessons(run).count) == ((), 16)
    with eager_polling():
        sit(run)
    assert "reading" not in [event.stage for event in read_events(run)[0] if event.kind == "stage"]


def test_another_data_set_under_the_same_name_is_refused(tmp_path: Path) -> None:
    drawn.idx(tmp_path / "clothes", 60)
    run = make_run(tmp_path)
    assert lessons(run).count == lessons(run).count == 57
    drawn.idx(tmp_path / "clothes", 61)
    with pytest.raises(TrainingError, match="has changed since this run began"):
        lessons(run)


def test_the_caption_swap_test_says_that_it_knows_drawn_scenes_only(
    trained: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate([str(trained.path)]) == 1
    assert "drawn scenes" in capsys.readouterr().err
