"""`bench sprout` with engines that paint by rule: prompts, colours, rows, effects, the card, and the command as a whole."""

from __future__ import annotations

import importlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from bench.scenes import measure
from bench.scenes.colour import colour_share, object_colour, redness
from bench.scenes.effects import editing_effect, negative_effect, weight_effect
from bench.scenes.figures import ROWS, card_block, judged, table, wilson_interval
from bench.scenes.painter import CFG, Painter, seconds_each
from bench.scenes.prompts import SHARES, Prompt, held_out_prompts
from studio.engine.fake import FakeEngine
from studio.errors import EngineError, IncompatibleFile
from studio.schema.engine import CancelToken
from studio.schema.events import Event, Finished, ImageReady
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest
from studio.training.card import BEGIN, END
from studio.training.data.scenes.glyphs import FONT_PATH
from studio.training.data.scenes.holdout import any_held_out
from studio.training.data.scenes.scene import Scene, Thing
from studio.training.data.scenes.vocabulary import BACKGROUNDS, COLOURS, OBJECTS
from studio.training.methods.judge.groups import split
from studio.training.methods.judge.judge import Judge, Picture, build_network

sprout = importlib.import_module("bench.sprout")
SIDE = 64
MODEL = ModelInfo(
    kind="checkpoint", name="tiny", path="/nowhere/tiny", layout="folder", family="sd1", size=1, mtime=0.0, native_size=SIDE
)  # fmt: skip
GRAY = BACKGROUNDS["gray"]
SHAPE = next(kind for kind in OBJECTS if kind.is_shape)


class RuleEngine(FakeEngine):
    """Paints what a function of the request says."""

    def __init__(self, rule: Callable[[ResolvedRequest], Picture]) -> None:
        super().__init__()
        self._rule = rule

    def run(self, resolved: ResolvedRequest, cancel: CancelToken) -> Iterator[Event]:
        self.runs.append(resolved)
        buffer = io.BytesIO()
        Image.fromarray(self._rule(resolved)).save(buffer, "PNG")
        yield ImageReady(index=0, seed=resolved.seeds[0], width=SIDE, height=SIDE, infotext="", png=buffer.getvalue())
        yield Finished(images=1, seconds=0.0)


def block(colour: tuple[int, int, int], behind: tuple[int, int, int] = GRAY, side: int = SIDE) -> Picture:
    """A square of one colour in the middle of another."""
    picture = np.empty((side, side, 3), dtype=np.uint8)
    picture[:] = behind
    picture[side // 4 : -side // 4, side // 4 : -side // 4] = colour
    return picture


# -- prompts and painting ---------------------------------------------------------------------------------------------


def test_prompts_are_held_out_fixed_and_in_their_shares() -> None:
    prompts = held_out_prompts(96)
    assert [prompt.text for prompt in prompts] == [prompt.text for prompt in held_out_prompts(96)]
    assert all(any_held_out(prompt.scene.pairs()) for prompt in prompts)
    groups = Counter(prompt.group for prompt in prompts)
    assert groups == {"single": 36, "pair": 24, "style": 18, "time": 6, "count 2": 4, "count 3": 4, "count 4": 4}
    assert [prompt.index for prompt in prompts] == sorted({prompt.index for prompt in prompts})


def test_the_painter_asks_for_what_the_figures_are_measured_at() -> None:
    engine = FakeEngine()
    picture = replace(Painter((engine,), MODEL), steps=6, negative="red")("a fox", 300)
    assert picture.shape == (SIDE, SIDE, 3) and picture[0, 0].tolist() == [300 % 256, 1, 128]
    (asked,) = engine.runs
    assert (asked.sampler, asked.schedule, asked.steps, asked.cfg_scale) == ("DPM++ 2M", "Karras", 6, CFG)
    assert (asked.positive.text, asked.negative.text, asked.seeds) == ("a fox", "red", (300,))
    assert not asked.options.save and asked.options.preview_every == 0


def test_many_pictures_are_painted_on_all_engines_and_come_in_order() -> None:
    met = threading.Barrier(2, timeout=20)  # passes only where two are painted at once

    def rule(asked: ResolvedRequest) -> Picture:
        met.wait()
        return block((asked.seeds[0], 0, 0))

    engines = (RuleEngine(rule), RuleEngine(rule))
    pictures = Painter(engines, MODEL).all([("a fox", seed) for seed in range(8)], "foxes")
    assert [picture[SIDE // 2, SIDE // 2, 0] for picture in pictures] == list(range(8))
    assert sum(len(engine.runs) for engine in engines) == 8


def test_another_size_than_the_native_one() -> None:
    engine = FakeEngine()
    replace(Painter((engine,), MODEL), size=(96, 64))("a fox", 1)
    assert [(run.width, run.height) for run in engine.runs] == [(96, 64)]


def test_an_engine_that_paints_nothing_is_an_error() -> None:
    class Empty(FakeEngine):
        def run(self, resolved: ResolvedRequest, cancel: CancelToken) -> Iterator[Event]:
            yield Finished(images=0, seconds=0.0)

    with pytest.raises(EngineError, match="a fox"):
        Painter((Empty(),), MODEL)("a fox", 1)


def test_times_leave_the_first_picture_out() -> None:
    engine = FakeEngine()
    assert len(seconds_each(Painter((engine,), MODEL), ["a", "b"])) == 2
    assert len(engine.runs) == 3
    assert len({run.positive.text for run in engine.runs}) == 3


# -- colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("behind", ["gray", "pink"])
def test_the_colour_of_a_block_is_named(colour: str, behind: str) -> None:
    if colour != behind:
        assert object_colour(block(COLOURS[colour], BACKGROUNDS[behind])) == colour


def test_nothing_stands_out_of_its_own_colour() -> None:
    assert object_colour(block(COLOURS["white"], BACKGROUNDS["white"])) == ""


def test_a_background_that_changes_with_height_is_no_object() -> None:
    sky = np.linspace((40, 90, 220), (30, 160, 60), SIDE).astype(np.uint8)
    picture = np.repeat(sky[:, None], SIDE, axis=1)
    assert object_colour(picture) == ""
    picture[20:44, 20:44] = COLOURS["red"]
    assert object_colour(picture) == "red"


def test_lab_agrees_with_published_values() -> None:
    red = np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)
    green = np.full((4, 4, 3), (0, 255, 0), dtype=np.uint8)
    assert redness(red) == pytest.approx(80.09, abs=0.1)
    assert redness(green) == pytest.approx(-86.18, abs=0.1)


def test_the_share_of_a_colour_is_its_area() -> None:
    assert colour_share(block(COLOURS["red"]), "red") == pytest.approx(0.25)
    assert colour_share(block(COLOURS["red"]), "green") == 0


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "right, count, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (0, 0, 0, 1)],
)
def test_intervals_agree_with_newcombe_1998_table_1(right: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)


def prompt(**scene: object) -> Prompt:
    return Prompt(0, Scene(Thing(OBJECTS[0]), **scene))  # type: ignore[arg-type]


def test_rows_take_their_groups_and_counts_take_equally_many_of_each_number() -> None:
    prompts = (
        [prompt() for _ in range(5)] + [prompt(count=number) for number in (2, 3, 3, 4)] + [prompt(style="sticker")]
    )
    painted = [{"object": True, "count": i > 0, "background": True} for i in range(9)] + [
        {"object": False, "style": True}
    ]
    drawn = [dict.fromkeys(verdict, True) for verdict in painted]
    rows = {row["name"]: row for row in table(prompts, painted, drawn)}
    assert rows["object, where there is one"]["n"] == 5
    assert rows["object, where there is one"]["share"] == 1
    counts = rows["count, 1 to 4"]
    assert (counts["n"], counts["share"], counts["drawings"], counts["goal"]) == (4, 0.75, 1, 0.8)
    assert rows["background or place"]["n"] == 9
    assert rows["style"]["n"] == 1
    assert "time of day" not in rows


def test_every_row_has_prompts() -> None:
    prompts = held_out_prompts(96)
    judge = Judge(build_network((8,)), (8,), 32)
    verdicts = judged(judge, prompts, [block(GRAY, side=32)] * len(prompts))
    assert [row["name"] for row in table(prompts, verdicts, verdicts)] == [row.name for row in ROWS]


def test_colour_is_judged_by_rule_where_one_object_has_a_colour_word() -> None:
    red = Prompt(0, Scene(Thing(SHAPE, "red"), background="gray"))
    plain = Prompt(1, Scene(Thing(SHAPE), background="gray"))
    judge = Judge(build_network((8,)), (8,), 32)
    right, wrong, open_ = judged(judge, [red, red, plain], [block(COLOURS["red"]), block(COLOURS["blue"]), block(GRAY)])
    assert right["colour"] and not wrong["colour"] and "colour" not in open_


def test_a_negative_prompt_that_works_lowers_its_own_colour() -> None:
    def rule(asked: ResolvedRequest) -> Picture:
        return block(GRAY if asked.negative.text == "red" else COLOURS["red"])

    found = negative_effect(Painter((RuleEngine(rule),), MODEL), 4)
    assert (found["covered_without"], found["covered_with"], found["covered_with_another"]) == (0.25, 0, 0.25)
    assert (found["lowered"]["share"], found["lowered"]["n"]) == (1, 4)


def test_a_negative_prompt_that_does_not_listen_lowers_nothing() -> None:
    def rule(asked: ResolvedRequest) -> Picture:
        return block(GRAY if asked.negative.text else COLOURS["red"])

    found = negative_effect(Painter((RuleEngine(rule),), MODEL), 4)
    assert (found["covered_with"], found["covered_with_another"], found["lowered"]["share"]) == (0, 0, 0)


def test_a_weight_that_works_raises_the_red() -> None:
    def rule(asked: ResolvedRequest) -> Picture:
        weight = next(weight for text, weight in asked.positive.branches[0].texts[0] if "red" in text)
        return block((round(100 * weight), 60, 60))

    found = weight_effect(Painter((RuleEngine(rule),), MODEL), 4)
    assert list(found["redness"]) == ["0.6", "1", "1.4"]
    assert found["redness"]["0.6"] < found["redness"]["1"] < found["redness"]["1.4"]
    assert found["raised"]["share"] == 1 and found["raised"]["n"] == 4


def test_editing_that_works_leaves_more_red_the_later_green_comes() -> None:
    def rule(asked: ResolvedRequest) -> Picture:
        (branch,) = asked.positive.branches
        assert ["red" in str(text) for text in branch.texts] == [True, False]
        return block((branch.stretches[0][0] * 10, 60, 60))

    found = editing_effect(Painter((RuleEngine(rule),), MODEL), 4)
    assert list(found["redness"]) == ["0.3", "0.5", "0.7"]
    assert found["redness"]["0.3"] < found["redness"]["0.5"] < found["redness"]["0.7"]
    assert found["raised"]["share"] == 1


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with a tiny VAE and a card, an engine that paints flat pictures, and an untrained judge."""
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=1, layers_per_block=1)
    folder = tmp_path / "model"
    vae.save_pretrained(folder / "vae")
    (folder / "README.md").write_text(f"# Model\n\n{BEGIN}\nold\n{END}\n\nLimits\n")
    Judge(build_network((8,)), (8,), 32).save(tmp_path / "judge", {})
    monkeypatch.setattr(sprout, "JUDGE", tmp_path / "judge")
    monkeypatch.setattr(sprout, "find_model", lambda name: MODEL.model_copy(update={"path": str(folder)}))
    monkeypatch.setattr(sprout, "WorkerEngine", FakeEngine)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return folder


@pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
def test_one_command_prints_figures_and_writes_sheet_and_card(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "Amounts", lambda: measure.QUICK)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert sprout.main(["--count", "48", "--out", str(tmp_path / "out"), "--card"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["engine"] == {"dtype": "none", "threads": {"painted": 1, "timed": 3}}
    assert printed == json.loads((tmp_path / "out" / "figures.json").read_text())
    assert printed["prompts"]["count"] == 48
    assert {row["name"] for row in printed["rows"]} <= {row.name for row in ROWS}
    assert printed["vae"]["pictures"] == 8 and printed["seconds"].keys() == {"20", "6"}
    card = (installed / "README.md").read_text()
    assert card.startswith("# Model\n") and card.endswith("Limits\n") and "old" not in card
    assert card_block(printed) in card
    for folder in (installed, tmp_path / "out"):
        with Image.open(folder / "contact_sheet.jpg") as sheet:
            assert sheet.width > 8 * SIDE


@pytest.mark.skipif(not FONT_PATH.exists(), reason="drawing needs the package fonts-noto-color-emoji")
@pytest.mark.usefixtures("installed")
def test_figures_that_cannot_be_written_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("no folder")
    assert sprout.main(["--quick", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["bench"] == "sprout" and "bench sprout: " in said.err


def test_the_card_states_every_row(installed: Path) -> None:
    share = {"share": 0.9, "interval": [0.8, 0.95], "n": 40}
    result = {
        "settings": {
            "sampler": "DPM++ 2M",
            "schedule": "Karras",
            "steps": 20,
            "few_steps": 6,
            "few_schedule": "SGM Uniform",
            "cfg": 4.0,
            "side": 128,
        },
        "prompts": {"count": 512},
        "rows": [{"name": "object", **share, "drawings": 0.99, "goal": 0.9, "by": "judge"}],
        "few_steps": {"object": share},
        "guidance": {"1": {"object": share, "colour": share}},
        "sizes": {"192x192": {"object": share}},
        "editing": {"redness": {"0.1": 2.0, "0.5": 8.0}, "raised": share},
        "negative": {"covered_without": 0.2, "covered_with": 0.1, "covered_with_another": 0.18, "lowered": share},
        "weight": {"redness": {"0.6": 1.0, "1.4": 9.0}, "raised": share},
        "seconds": {"20": {"median": 0.5}},
        "vae": {"pictures": 128, "psnr_db": 31.25},
        "machine": {"cores": 2},
    }
    text = card_block(result)
    assert "| object | 0.900 | 0.80 to 0.95 | 40 | 0.90 | 0.990 (judge) |" in text
    for fact in (
        "31.2 dB",
        "0.50",
        "CFG 1",
        "0.100 of the picture instead of 0.200",
        "1.0 at 0.6, 9.0 at 1.4",
        "2.0 at 0.1, 8.0 at 0.5",
        "192x192",
    ):
        assert fact in text


@pytest.mark.parametrize("count", ["23", "-5", "many"])
def test_too_few_prompts_are_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sprout.main(["--count", count])
    assert count in capsys.readouterr().err
    assert all(split(sprout.FEWEST, SHARES).values())


def test_what_cannot_be_measured_is_said_on_stderr(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sprout, "JUDGE", tmp_path / "none")
    assert sprout.main(["--quick"]) == 1
    assert "judge.toml" in capsys.readouterr().err
    with pytest.raises(IncompatibleFile, match="diffusers folder"):
        sprout._folder(MODEL.model_copy(update={"layout": "file"}))
