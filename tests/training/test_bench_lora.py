"""The rule of `bench lora`, and its recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.lora import DARK, LIGHT, RECIPE, WEIGHTS, WORDS, Pair, distance, draw_style, duotone, judge_objects, mcnemar
from studio.schema.training import load_training_config
from studio.schema.training_tuning import LoraMethod
from studio.training.data.scenes.glyphs import FONT_PATH

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_duotone_keeps_brightness_in_order_and_has_no_distance() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    toned = duotone(picture)
    assert distance(toned) < 0.003 and distance(picture) > 0.1
    before, after = (each @ WEIGHTS for each in (picture, toned))
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99
    ends = duotone(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8))
    assert np.array_equal(ends[0], np.stack([DARK, LIGHT]).astype(np.uint8))


def test_distance_is_that_of_a_point_to_a_stretch() -> None:
    beyond = np.clip(LIGHT + (LIGHT - DARK) * 0.1, 0, 255)
    pixel = np.full((2, 2, 3), beyond).astype(np.uint8)
    assert distance(pixel) == pytest.approx(np.linalg.norm(pixel[0, 0] - LIGHT) / 255, abs=1e-6)


def test_the_bench_s_recipe_is_valid(tmp_path: Path) -> None:
    recipe = tmp_path / "duotone.toml"
    recipe.write_text(RECIPE.format(steps=3, folder='"x"'))
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
    assert all(file.read_text().endswith(WORDS) for file in (tmp_path / "p").glob("*.txt"))


def test_the_things_that_lie_in_the_dark_are_seen_after_the_rule() -> None:
    """Purple on red: brightness 0.26 and 0.3 of white's."""
    picture = np.full((32, 32, 3), (200, 30, 40), np.uint8)
    picture[8:24, 8:24] = (120, 40, 170)
    toned = duotone(picture)
    assert {tuple(colour) for colour in toned.reshape(-1, 3)} == {tuple(DARK.astype(int)), tuple(LIGHT.astype(int))}
    assert duotone(np.full((4, 4, 3), 9, np.uint8)).shape == (4, 4, 3), "one colour alone"


def test_mcnemar_s_exact_test() -> None:
    """Against the binomial sums by hand: 1 of 5 is 2 * (1 + 5) / 32."""
    assert mcnemar(4, 1) == mcnemar(1, 4) == pytest.approx(12 / 32)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)


def test_objects_are_counted_in_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A judge that sees the object in pictures whose middle is light."""

    class Judge:
        @classmethod
        def load(cls, folder: Path) -> Judge:
            return cls()

        def look(self, pictures: list[np.ndarray]) -> list[bool]:
            return [bool(picture[4, 4].sum() > 300) for picture in pictures]

    def picture(middle: int) -> np.ndarray:
        made = np.full((8, 8, 3), 128, np.uint8)
        made[:4], made[4, 4] = 100, middle
        return made

    monkeypatch.setattr("studio.training.methods.judge.judge.Judge", Judge)
    monkeypatch.setattr("studio.training.methods.judge.verdict.verdicts", lambda scene, seen: {"object": seen})
    kinds = [(255, 255), (255, 255), (255, 0), (0, 255), (0, 0)]
    found = judge_objects(tmp_path, [Pair(None, picture(left), picture(left), picture(right)) for left, right in kinds])
    assert found["pairs"] == {"both": 2, "only_after_the_rule": 1, "only_lora": 1, "none": 1}
    assert found["p"] == 1.0
    assert found["lora"]["share"] == found["plain_after_the_rule"]["share"] == 0.6
    low, high = found["lora"]["interval"]
    assert low < 0.6 < high and found["lora"]["n"] == 5
