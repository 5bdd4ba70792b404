"""Does a LoRA learn a style that the embedded model has never seen? `python launch.py bench lora [--steps N] [--seeds N] [--weight W] [--out DIR]`.

24 scenes are drawn and brought into two colours (a duotone) by a rule on their pixels; a LoRA is trained on them by the product's own worker;
then prompts of combinations that nobody has seen are painted with and without it, by the product's own engine, with the same seeds. Captions
and the LoRA's prompts end in the nearest style that the model knows (`WORDS`); what those words do alone is measured too. Prints one JSON object:

    distance    mean distance of a picture's pixels to the nearest duotone of their brightness, as a share of the RGB cube's side: 0 is the style
    styled      share of pictures whose distance is at most half of the plain model's mean; of the plain model, with the words alone, with the LoRA
    object      share of pictures in which the judge (bench/judge) sees the asked object: of the plain model, of the plain model's pictures
                after the rule, which is the fair base (two colours take from the judge what it knows things by), and with the LoRA
    pairs       of the object, in how many pairs only the picture after the rule has it, only the LoRA's, both, or none
    p           chance of a difference as large as between the two in these pairs, if there were none: exact McNemar test, two-sided
    structure   correlation of brightness between the two pictures of a pair: how far the LoRA changes colours, not the drawing

Shares come with Wilson's 95 % interval. The settings were chosen on other prompts and seeds (`--choose`) than those that are painted here.

Drawing needs the Debian package `fonts-noto-color-emoji`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench._machine import machine
from studio import __version__
from studio.errors import StudioError
from studio.paths import REPOSITORY, Paths, atomic_write

TRAIN_SEED, PICTURES, SIDE = 77, 24, 128
DARK, LIGHT = np.array([24.0, 16.0, 92.0]), np.array([255.0, 196.0, 64.0])
WEIGHTS = np.array([0.299, 0.587, 0.114])
CHOICE_SEED, CHOICE_FIRST, FIRST = 4711, 5000, 1000
"""Of the scenes on which settings are compared (`--choose`), of their first picture, and of the first one that is reported."""
WORDS = ", black and white"
"""Behind every caption, and behind every prompt that is painted with the LoRA: the model then draws in tones, and only their colours are new."""
STEPS, WEIGHT = 400, 0.5
RECIPE = """
name = "duotone"
seed = 1
precision = "fp32"

[method]
kind = "lora"
model = "sprout-v1"
steps = {steps}
batch = 4
data = {{ path = {folder}, resolution = 128, flip = true, caption_dropout = 0.1 }}
network = {{ rank = 8, layers = "attention+feed-forward+conv" }}
optimizer = {{ learning_rate = 3e-3 }}
rate = {{ name = "cosine" }}
loss = {{ min_snr_gamma = 0, snr_mean = -1.5, snr_deviation = 2.0 }}
validation = {{ share = 0.1, every = 80 }}
"""
Picture = npt.NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Train, paint, print JSON; 1 when it cannot be done (the reason is then on stderr)."""
    parser = argparse.ArgumentParser(
        prog="bench lora", description="Train a LoRA on a new style and measure what it does."
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=24, help="held-out prompts, each with a seed of its own (default: %(default)s)"
    )
    parser.add_argument(
        "--weight", type=float, default=WEIGHT, help="weight of the LoRA in the prompt (default: %(default)s)"
    )
    parser.add_argument(
        "--judge",
        type=Path,
        default=REPOSITORY / "bench" / "judge",
        help="folder of the judge; without one nothing is said of objects",
    )
    parser.add_argument(
        "--choose",
        action="store_true",
        help="paint other prompts with other seeds: for comparing settings, not for a figure",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for figures.json and a sheet of all pairs")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-lora-") as folder:
            figures, sheet = measure(Path(folder), options)
    except (StudioError, OSError) as error:
        print(f"bench lora: {error}", file=sys.stderr)
        return 1
    text = json.dumps(figures, indent=2) + "\n"
    if options.out is not None:
        atomic_write(options.out / "figures.json", text.encode())
        sheet.save(options.out / "pairs.png")
    print(text, end="")
    return 0


def duotone(picture: Picture) -> Picture:
    """Each pixel on the line between the two colours, by its brightness, from the picture's darkest (1 %) to its lightest.

    Without the stretch a purple thing on red would be gone, in true drawings too.
    """
    brightness = picture @ WEIGHTS
    low, high = np.percentile(brightness, [1, 99])
    share = np.clip((brightness - low) / max(high - low, 1.0), 0, 1)[..., None]
    return np.rint(DARK * (1 - share) + LIGHT * share).astype(np.uint8)


def distance(picture: Picture) -> float:
    """Mean distance of the pixels to the line between the two colours, within its ends; 0 to about 1."""
    line = LIGHT - DARK
    pixels = picture.reshape(-1, 3).astype(np.float64)
    along = np.clip((pixels - DARK) @ line / (line @ line), 0, 1)
    return float(np.linalg.norm(pixels - (DARK + along[:, None] * line), axis=1).mean() / 255)


def measure(root: Path, options: argparse.Namespace) -> tuple[dict[str, Any], Image.Image]:
    """All figures, and a sheet with a row of plain pictures over a row of those with the LoRA."""
    draw_style(root / "pictures")
    trained = train(root, options.steps)
    pairs = paint(root, trained.file, options.seeds, options.weight, choose=options.choose)
    plain, styled = [pair.plain for pair in pairs], [pair.styled for pair in pairs]
    before, between, after = (
        [distance(picture) for picture in each] for each in (plain, [pair.worded for pair in pairs], styled)
    )
    threshold = float(np.mean(before)) / 2
    figures: dict[str, Any] = {
        "what": "LoRA on 24 duotone pictures, embedded model",
        "version": __version__,
        "machine": machine(),
        "train": {
            "steps": options.steps,
            "cpu_seconds": trained.cpu,
            "wall_seconds": trained.wall,
            "validation": trained.validation,
        },
        "choosing": options.choose,
        "weight": options.weight,
        "pairs": len(pairs),
        "distance": {
            "plain": _mean(before),
            "words_alone": _mean(between),
            "lora": _mean(after),
            "drawn": _mean([distance(duotone(picture)) for picture in plain]),
        },
        "styled": {
            "plain": _share([value <= threshold for value in before]),
            "words_alone": _share([value <= threshold for value in between]),
            "lora": _share([value <= threshold for value in after]),
        },
        "nearer_in_pairs": _share([right < left for left, right in zip(before, after, strict=True)]),
        "structure": _mean([_correlation(pair.plain, pair.styled) for pair in pairs]),
    }
    if options.judge.is_dir():
        figures["object"] = judge_objects(options.judge, pairs)
    return figures, _sheet(plain, styled)


@dataclass(frozen=True)
class Trained:
    """A finished run: its file, processor and wall seconds of the worker, and (step, loss) of the pictures kept back."""

    file: Path
    cpu: float
    wall: float
    validation: list[tuple[int, float]]


@dataclass(frozen=True)
class Pair:
    """A scene painted with one seed: its prompt; that with `WORDS`; that with the LoRA too."""

    scene: Any
    plain: Picture
    worded: Picture
    styled: Picture


def draw_style(folder: Path) -> None:
    """The pictures to learn from, one thing in each, with its caption; the scenes are of training's kind, so that held-out prompts stay unseen."""
    from studio.training.data.scenes.captions import plain_caption
    from studio.training.data.scenes.glyphs import GlyphAtlas
    from studio.training.data.scenes.paint import paint_scene
    from studio.training.methods.judge.groups import pick_scenes

    folder.mkdir()
    atlas = GlyphAtlas()
    for number, (index, scene) in enumerate(pick_scenes(TRAIN_SEED, {"single": PICTURES}, held_out=False)):
        Image.fromarray(duotone(paint_scene(scene, atlas, TRAIN_SEED, index, SIDE))).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(plain_caption(scene) + WORDS, encoding="utf-8")


def train(root: Path, steps: int) -> Trained:
    """A run in its own process, as `launch.py train` starts it."""
    from studio.trainer import TrainingSession
    from studio.training.runs import Validated, read_events

    recipe = root / "duotone.toml"
    recipe.write_text(RECIPE.format(steps=steps, folder=json.dumps(str(root / "pictures"))), encoding="utf-8")
    began, used = time.monotonic(), _children()
    session = TrainingSession(recipe, Paths(root).runs, "cpu")
    for event in session.events():
        if event.kind == "progress":
            print(f"{event.stage} {event.step}/{event.total}", file=sys.stderr)
        if event.kind == "failed":
            raise StudioError(event.message)
    validation = [
        (event.step, round(event.loss, 4)) for event in read_events(session.run)[0] if isinstance(event, Validated)
    ]
    wall = time.monotonic() - began
    return Trained(
        Path(json.loads(session.run.result.read_text("utf-8"))["file"]),
        round(_children() - used, 1),
        round(wall, 1),
        validation,
    )


def paint(root: Path, file: Path, count: int, weight: float, *, choose: bool) -> list[Pair]:
    """Held-out prompts of one object each, painted by the engine as they are, with `WORDS`, and with the LoRA."""
    from bench.scenes.painter import Painter
    from bench.scenes.prompts import EVALUATION_SEED
    from studio.engine.runner import DiffusersEngine
    from studio.library import Library
    from studio.training.data.scenes.captions import plain_caption
    from studio.training.methods.judge.groups import pick_scenes

    drawn_from, first = (CHOICE_SEED, CHOICE_FIRST) if choose else (EVALUATION_SEED, FIRST)
    scenes = [scene for _, scene in pick_scenes(drawn_from, {"single": count}, held_out=True)]
    orders = [(plain_caption(scene), first + index) for index, scene in enumerate(scenes)]
    with contextlib.closing(Library(Paths(root))) as library:
        painter = Painter((DiffusersEngine("cpu"),), library.checkpoint("sprout-v1"), library=library)
        plain = painter.all(orders, "plain")
        worded = painter.all([(prompt + WORDS, seed) for prompt, seed in orders], "words alone")
        asked = [(f"{prompt}{WORDS} <lora:{file.stem}:{weight:g}>", seed) for prompt, seed in orders]
        styled = painter.all(asked, "lora")
    return [Pair(*each) for each in zip(scenes, plain, worded, styled, strict=True)]


def judge_objects(folder: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """In what share of the pictures the judge sees the asked object, and how the fair base and the LoRA agree on it."""
    from studio.training.methods.judge.judge import Judge
    from studio.training.methods.judge.verdict import verdicts

    judge = Judge.load(folder)

    def right(pictures: Sequence[Picture]) -> list[bool]:
        return [verdicts(pair.scene, seen)["object"] for pair, seen in zip(pairs, judge.look(pictures), strict=True)]

    plain = [pair.plain for pair in pairs]
    base, lora = right([duotone(each) for each in plain]), right([pair.styled for pair in pairs])
    agreement = Counter(zip(base, lora, strict=True))
    return {
        "plain": _share(right(plain)),
        "plain_after_the_rule": _share(base),
        "lora": _share(lora),
        "pairs": {
            "both": agreement[True, True],
            "only_after_the_rule": agreement[True, False],
            "only_lora": agreement[False, True],
            "none": agreement[False, False],
        },
        "p": round(mcnemar(agreement[True, False], agreement[False, True]), 4),
    }


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact McNemar test: `first` and `second` pairs in which only one of the two is right."""
    count = first + second
    tail = sum(math.comb(count, number) for number in range(min(first, second) + 1)) / 2**count
    return min(1.0, 2 * tail)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def _share(values: Sequence[bool]) -> dict[str, Any]:
    from bench.scenes.figures import share_figure
    from studio.training.methods.judge.verdict import Share

    return share_figure(Share(sum(values), len(values)))


def _correlation(left: Picture, right: Picture) -> float:
    return float(np.corrcoef((left @ WEIGHTS).ravel(), (right @ WEIGHTS).ravel())[0, 1])


def _sheet(plain: Sequence[Picture], styled: Sequence[Picture]) -> Image.Image:
    rows = [
        np.concatenate(each[start : start + 8], axis=1)
        for start in range(0, len(plain) - len(plain) % 8, 8)
        for each in (plain, styled)
    ]
    return Image.fromarray(np.concatenate(rows or [np.concatenate(plain[:1], axis=1)]))


if __name__ == "__main__":
    sys.exit(main())
