"""The rule of `bench lora`, and its recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.lora import DARK, LIGHT, RECIPE, WEIGHTS, distance, draw_style, duotone
from studio.schema.training import load_training_config
from studio.schema.training_tuning import LoraMethod
from studio.training.data.scenes.glyphs import FONT_PATH

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_duotone_keeps_brightness_in_order_and_has_no_distance() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    toned = duotone(picture)
    assert distance(toned) < 0.003 and distance(picture) > 0.1
    before, after = (each @ WEIGHTS for each in (picture, toned))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999
    ends = duotone(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8))
    assert np.array_equal(ends[0], np.stack([DARK, LIGHT]).astype(np.uint8))


def test_distance_is_that_of_a_point_to_a_stretch() -> None:
    beyond = np.clip(LIGHT + (LIGHT - DARK) * 0.1, 0, 255)
    pixel = np.full((2, 2, 3), beyond).astype(np.uint8)
    assert distance(pixel) == pytest.approx(np.linalg.norm(pixel[0, 0] - LIGHT) / 255, abs=1e-6)


def test_the_bench_s_recipe_is_valid(tmp_path: Path) -> None:
    recipe = tmp_path / "duotone.toml"
    recipe.write_text(RECIPE.format(steps=3, folder='"x"', trigger="t"))
    config = load_training_config(recipe)
    assert isinstance(config.method, LoraMethod) and config.method.steps == 3


@pytest.mark.parametrize("name, model", [("lora", "sprout-v1"), ("lora-captioned-parquet", "v1-5-pruned-emaonly")])
def test_the_shipped_recipes_are_valid(name: str, model: str) -> None:
    config = load_training_config(REPOSITORY / "recipes" / f"{name}.toml")
    assert isinstance(config.method, LoraMethod) and config.method.model == model


@pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
def test_the_pictures_are_drawn_with_captions(tmp_path: Path) -> None:
    draw_style(tmp_path / "p")
    assert len(list((tmp_path / "p").glob("*.png"))) == len(list((tmp_path / "p").glob("*.txt"))) == 24
