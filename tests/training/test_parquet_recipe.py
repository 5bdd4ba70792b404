"""The shipped recipe for a captioned parquet file, on a small file drawn in that shape: stopped, resumed, finished; 1,221 pictures are counted as they come."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.tuning.parquet import COUNT, main, write
from studio.schema.training import load_training_config
from studio.schema.training_data import DatasetSettings
from studio.schema.training_tuning import LoraMethod
from studio.training.context import StopTraining, TrainingContext
from studio.training.data.dataset import read_dataset
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.methods import run_method
from tests.training.miniature import eager_polling
from tests.training.tuning import events, run_in, studio, train

pytestmark = pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "lora-captioned-parquet.toml"


def test_the_recipe_s_steps_are_ten_epochs_of_as_many_pictures_as_are_drawn() -> None:
    method = load_training_config(RECIPE).method
    assert isinstance(method, LoraMethod)
    assert method.steps == COUNT * 10 // method.batch
    assert (method.data.resolution, method.data.path) == (256, "datasets/naruto-blip-captions")


def test_the_recipe_trains_stops_and_goes_on(tmp_path: Path) -> None:
    root = studio(tmp_path / "data", pictures=0)
    assert (
        main([str(root / "datasets" / "naruto-blip-captions" / "train.parquet"), "--count", "5", "--side", "64"]) == 0
    )
    config = load_training_config(RECIPE).model_dump(mode="json")
    config["precision"] = "fp32"
    method = config["method"]
    method.update(model="tiny", steps=6)
    method["data"]["resolution"] = 64
    method["validation"].update(every=3)
    method["samples"].update(every=3, steps=1)
    run = run_in(root, config)
    with eager_polling():
        with pytest.raises(StopTraining):
            run_method(TrainingContext(run.config(), run, lambda: len(events(run, "step")) >= 2))
        done = len(events(run, "step"))
        assert done == 2
        file = train(run)
    assert [event.step for event in events(run, "step")] == [1, 2, 3, 4, 5, 6]
    assert file == root / "loras" / "naruto.safetensors" and file.is_file()


def test_the_drawn_file_has_the_hub_s_columns(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", 3, 32)
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert [(field.name, str(field.type)) for field in schema] == [
        ("image", "struct<bytes: binary, path: string>"),
        ("text", "string"),
    ]
    found = read_dataset(DatasetSettings(path=str(tmp_path / "x.parquet")))
    assert [item.size for item in found.items] == [(32, 32)] * 3 and all(item.captions[0] for item in found.items)
