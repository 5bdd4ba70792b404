"""The rule of `bench lora`, and its recipe."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import lora
from bench.lora import CHOICE, RECIPE, REPORT, Pair, draw_style, held_out, judge_objects, mcnemar, style_figures
from bench.scenes.old_print import INK, KEPT, PAPER, WEIGHTS, distance, printed
from studio import trainer
from studio.schema.training import load_training_config
from studio.schema.training_tuning import LoraMethod
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.runs import Event, RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]


def _noise(side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_an_old_print_has_a_paper_margin_and_faded_colours_in_order() -> None:
    picture = _noise()
    print_ = printed(picture)
    assert (print_[:2] == PAPER).all() and (print_[:, -2:] == PAPER).all() and not (print_[2, 2:-2] == PAPER).all()
    before, after = (each[2:-2, 2:-2] for each in (picture, print_))
    tone_before, tone_after = before @ WEIGHTS, after @ WEIGHTS
    assert np.corrcoef(tone_before.ravel(), tone_after.ravel())[0, 1] > 0.999
    ends = tone_before / 255
    neutral = INK * (1 - ends[..., None]) + PAPER * ends[..., None]
    assert np.allclose(after - neutral, KEPT * (before - tone_before[..., None]), atol=0.51)


def test_a_printed_picture_has_no_distance_and_another_has_both() -> None:
    plain, ready = distance(_noise()), distance(printed(_noise()))
    assert max(ready) < 0.003
    assert min(plain) > 0.05


def test_distance_of_colours_is_that_to_the_nearest_the_rule_gives() -> None:
    """Against all mixtures of the cube's corners on a grid of 33 a side, which is at most half a cell's diagonal off."""
    grid = np.linspace(0, 1, 33)
    cube = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    tone = (cube @ WEIGHTS)[:, None]
    body = INK * (1 - tone) + PAPER * tone + 255 * KEPT * (cube - tone)
    for colour in (
        (0, 0, 0),
        (255, 255, 255),
        (255, 0, 0),
        (0, 255, 255),
        (20, 200, 30),
        (70, 36, 96),
        (150, 130, 140),
    ):
        picture = np.full((32, 32, 3), colour, np.uint8)
        nearest = np.linalg.norm(body - np.array(colour), axis=1).min() / 255
        assert distance(picture).colours == pytest.approx(nearest, abs=0.015)
        assert distance(picture).colours <= nearest + 1e-6
        assert distance(picture).margin == pytest.approx(np.linalg.norm(PAPER - colour) / 255)


def test_a_picture_has_the_style_when_both_colours_and_margin_have_it() -> None:
    plain = _noise()
    margin, colours = plain.copy(), printed(plain)
    margin[:2] = margin[-2:] = margin[:, :2] = margin[:, -2:] = PAPER
    colours[:2] = colours[-2:] = colours[:, :2] = colours[:, -2:] = 0
    found = style_figures([plain] * 3, [margin, colours, printed(plain)])
    assert found["styled"]["plain"]["share"] == 0 and found["styled"]["lora"]["share"] == pytest.approx(1 / 3, abs=1e-3)
    assert found["distance"]["lora"]["margin"] < found["distance"]["plain"]["margin"]
    assert found["distance"]["drawn"]["colours"] < 0.003
    assert found["nearer_in_pairs"]["n"] == 3


def test_the_bench_s_recipe_is_valid(tmp_path: Path) -> None:
    recipe = tmp_path / "print.toml"
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
    assert all(file.read_text() for file in (tmp_path / "p").glob("*.txt"))
    with Image.open(tmp_path / "p" / "00.png") as picture:
        assert max(distance(np.asarray(picture))) < 0.003


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
            return [bool(picture[4, 4].sum() > 500) for picture in pictures]

    def picture(middle: int) -> np.ndarray:
        made = np.full((8, 8, 3), 128, np.uint8)
        made[:4], made[4, 4] = 100, middle
        return made

    monkeypatch.setattr("studio.training.methods.judge.judge.Judge", Judge)
    monkeypatch.setattr("studio.training.methods.judge.verdict.verdicts", lambda scene, seen: {"object": seen})
    kinds = [(255, 255), (255, 255), (255, 0), (0, 255), (0, 0)]
    found = judge_objects(tmp_path, [Pair(None, picture(left), picture(right)) for left, right in kinds])
    assert found["pairs"] == {"both": 2, "only_after_the_rule": 1, "only_lora": 1, "none": 1}
    assert found["p"] == 1.0 and found["kept"] == 1.0
    assert found["lora"]["share"] == found["plain_after_the_rule"]["share"] == 0.6
    low, high = found["lora"]["interval"]
    assert low < 0.6 < high and found["lora"]["n"] == 5


def test_settings_are_chosen_on_other_prompts_and_seeds_than_those_reported() -> None:
    chosen, reported = held_out(CHOICE, 9), held_out(REPORT, 400)
    assert [seed for _, seed in chosen] == [5000, 5001, 5002, 5003, 5004, 30_000, 30_001, 30_002, 30_003]
    assert len(reported) == len({seed for _, seed in reported}) == 400
    assert not {seed for _, seed in reported} & {first + number for _, first in CHOICE for number in range(400)}
    assert [scene for scene, _ in held_out(CHOICE[:1], 9)] != [scene for scene, _ in reported[:9]]
    assert all(scene.partner is None and scene.count == 1 for scene, _ in [*chosen, *reported])


def test_a_result_says_with_what_it_was_painted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = {"dtype": "bfloat16", "threads": 2}
    monkeypatch.setattr(lora, "draw_style", lambda folder: None)
    monkeypatch.setattr(lora, "train", lambda root, steps: lora.Trained(root / "print.safetensors", 1.0, 2.0, []))
    monkeypatch.setattr(lora, "paint", lambda *_, choose: ([Pair(None, _noise(), _noise())], engine))
    options = argparse.Namespace(steps=3, seeds=1, weight=1.0, choose=False, judge=tmp_path / "none")
    figures = lora.measure(tmp_path, options)[0]
    assert figures["engine"] == engine and {"bench", "code", "machine", "version"} <= figures.keys()


def test_figures_that_cannot_be_written_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("no folder")
    monkeypatch.setattr(lora, "measure", lambda root, options: ({"bench": "lora"}, Image.new("RGB", (8, 8))))
    assert lora.main(["--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"bench": "lora"} and "bench lora: " in said.err


@pytest.mark.parametrize("hears", [True, False])
def test_no_process_trains_on_when_the_benchmark_ends(
    hears: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is detached, so Ctrl-C does not reach it: it is asked to stop, and killed where it does not."""
    code = f"""
import pathlib, time
print("there", flush=True)
while not ({hears} and (pathlib.Path.cwd() / "control" / "stop").exists()):
    time.sleep(0.02)
"""
    started: list[subprocess.Popen[bytes]] = []

    def start(run: RunFolder, command: Sequence[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=run.path, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline()
        started.append(process)
        return process

    def interrupted(self: trainer.TrainingSession) -> Iterator[Event]:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "start_worker", start)
    monkeypatch.setattr(trainer.TrainingSession, "events", interrupted)
    monkeypatch.setattr(lora, "ENDING_SECONDS", 20 if hears else 0.1)
    with pytest.raises(KeyboardInterrupt):
        lora.train(tmp_path, 3)
    (process,) = started
    with process:
        assert process.returncode == (0 if hears else -signal.SIGKILL)
