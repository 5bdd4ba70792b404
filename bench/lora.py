"""Does a LoRA learn a style that the embedded model has never seen, and leave the rest? `python launch.py bench lora [--seeds N] [--weight W] [--out DIR]`.

24 scenes are drawn and made old prints by a rule on their pixels (`bench/scenes/old_print.py`); a LoRA is trained on them by the product's own worker;
then prompts of combinations that nobody has seen are painted with and without it, by the product's own engine, with the same seeds. Prints one
JSON object:

    distance    of the pixels to the style's colours, and of the margin's to the paper, as a share of the RGB cube's side: 0 is the style
    styled      share of pictures that are, in both, at most half as far as the plain model's mean; of the plain model and with the LoRA
    object      share of pictures in which the judge (bench/judge) sees the asked object: of the plain model, of the plain model's pictures
                after the rule, which is the fair base (the style takes from the judge some of what it knows things by), and with the LoRA
    kept        of the object, the LoRA's share by that of the fair base
    pairs       of the object, in how many pairs only the picture after the rule has it, only the LoRA's, both, or none
    p           chance of a difference as large as between the two in these pairs, if there were none: exact McNemar test, two-sided
    structure   correlation of brightness between the picture after the rule and the LoRA's: how far the drawing is the same

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
from PIL import Image

from bench._result import facts, finish
from bench.scenes.old_print import WEIGHTS, Distance, Picture, distance, printed
from studio.errors import StudioError
from studio.paths import REPOSITORY, Paths

TRAIN_SEED, PICTURES, SIDE = 77, 24, 128
CHOICE = ((4711, 5000), (2028, 30_000))
"""Seeds of the scenes on which settings are compared (`--choose`), and of the first picture of each: those of one seed alone mislead."""
REPORT = ((2029, 40_000),)
"""Of the scenes that are reported, on which nothing was chosen."""
STEPS, WEIGHT, CFG = 330, 1.0, 2.5
"""Of the training, of the LoRA in the prompt, and of all painting: at 4 guidance drives colours beyond what a faded print has."""
ENDING_SECONDS = 30.0
"""How long the process that trains may take to stop when the benchmark is broken off."""
SHEET = 12
"""Pairs on the sheet: the first ones, whatever they look like."""
RECIPE = """
name = "print"
seed = 1
precision = "fp32"

[method]
kind = "lora"
model = "sprout-v1"
steps = {steps}
batch = 4
data = {{ path = {folder}, resolution = 128, flip = true, caption_dropout = 0.1 }}
network = {{ rank = 8, layers = "attention+conv", cross_attention = false }}
optimizer = {{ learning_rate = 2e-3 }}
rate = {{ name = "cosine" }}
loss = {{ min_snr_gamma = 0, snr_mean = -1.5, snr_deviation = 2.0 }}
validation = {{ share = 0.1, every = 120 }}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, paint, print JSON, write what was asked for; 1 when it cannot be done or written (the reason is then on stderr)."""
    parser = argparse.ArgumentParser(
        prog="bench lora", description="Train a LoRA on a new style and measure what it does."
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=384, help="held-out prompts, each with a seed of its own (default: %(default)s)"
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
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for figures.json and a sheet of the first pairs"
    )
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-lora-") as folder:
            figures, sheet = measure(Path(folder), options)
        failed = finish(figures, options.out and options.out / "figures.json")
        if options.out and not failed:
            sheet.save(options.out / "pairs.jpg", quality=90)
    except (StudioError, OSError) as error:
        print(f"bench lora: {error}", file=sys.stderr)
        return 1
    return failed


def measure(root: Path, options: argparse.Namespace) -> tuple[dict[str, Any], Image.Image]:
    """All figures, and a sheet with a row of plain pictures over a row of those with the LoRA. `options` are those of `main`.

    Files of the way there lie in the folder `root`. Raises `StudioError` when training fails, the engine cannot paint or the judge is of
    another vocabulary, `TrainingError` among them when there is no font to draw with; and `OSError`.
    """
    head = facts("lora", quick=False)
    draw_style(root / "pictures")
    trained = train(root, options.steps)
    pairs, engine = paint(root, trained.file, options.seeds, options.weight, choose=options.choose)
    plain, styled = [pair.plain for pair in pairs], [pair.styled for pair in pairs]
    figures: dict[str, Any] = {
        **head,
        "what": f"LoRA on {PICTURES} old prints, embedded model",
        "engine": engine,
        "train": {
            "steps": options.steps,
            "cpu_seconds": trained.cpu,
            "wall_seconds": trained.wall,
            "validation": trained.validation,
        },
        "choosing": options.choose,
        "weight": options.weight,
        "cfg": CFG,
        "pairs": len(pairs),
        **style_figures(plain, styled),
        "structure": _mean([_correlation(printed(pair.plain), pair.styled) for pair in pairs]),
    }
    if options.judge.is_dir():
        figures["object"] = judge_objects(options.judge, pairs)
    return figures, _sheet(plain[:SHEET], styled[:SHEET])


def style_figures(plain: Sequence[Picture], styled: Sequence[Picture]) -> dict[str, Any]:
    """How far from the style the pictures are without and with the LoRA, and how many have it."""
    before, after = ([distance(picture) for picture in each] for each in (plain, styled))
    limits = np.mean(before, axis=0) / 2
    means = {"plain": before, "lora": after, "drawn": [distance(printed(picture)) for picture in plain]}
    return {
        "distance": {
            name: dict(zip(Distance._fields, map(_mean, zip(*values, strict=True)), strict=True))
            for name, values in means.items()
        },
        "styled": {
            name: _share([bool(np.all(value <= limits)) for value in values])
            for name, values in (("plain", before), ("lora", after))
        },
        "nearer_in_pairs": _share(
            [bool(np.all(np.less(right, left))) for left, right in zip(before, after, strict=True)]
        ),
    }


@dataclass(frozen=True)
class Trained:
    """A finished run: its file, processor and wall seconds of the worker, and (step, loss) of the pictures kept back."""

    file: Path
    cpu: float
    wall: float
    validation: list[tuple[int, float]]


@dataclass(frozen=True)
class Pair:
    """A scene painted with one seed, without and with the LoRA."""

    scene: Any
    plain: Picture
    styled: Picture


def draw_style(folder: Path) -> None:
    """The pictures to learn from, two things in each, with their captions; the scenes are of training's kind, so that held-out prompts stay unseen.

    Two, because what is learned from pictures of one thing alone costs more of what is painted with it (bench/README.md).
    """
    from studio.training.data.scenes.captions import plain_caption
    from studio.training.data.scenes.glyphs import GlyphAtlas
    from studio.training.data.scenes.paint import paint_scene
    from studio.training.methods.judge.groups import pick_scenes

    folder.mkdir()
    atlas = GlyphAtlas()
    for number, (index, scene) in enumerate(pick_scenes(TRAIN_SEED, {"pair": PICTURES}, held_out=False)):
        Image.fromarray(printed(paint_scene(scene, atlas, TRAIN_SEED, index, SIDE))).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(plain_caption(scene), encoding="utf-8")


def train(root: Path, steps: int) -> Trained:
    """A run of `steps` optimizer steps on the pictures in `root`/pictures, in its own process, as `launch.py train` starts it.

    The process never outlives this call. Raises `StudioError` when the run fails, `TrainingError` among them when its process ends without a
    word.
    """
    from studio.trainer import TrainingSession
    from studio.training.runs import Validated, read_events

    recipe = root / "print.toml"
    recipe.write_text(RECIPE.format(steps=steps, folder=json.dumps(str(root / "pictures"))), encoding="utf-8")
    began, used = time.monotonic(), _children()
    session = TrainingSession(recipe, Paths(root).runs, "cpu")
    try:
        for event in session.events():
            if event.kind == "progress":
                print(f"{event.stage} {event.step}/{event.total}", file=sys.stderr)
            if event.kind == "failed":
                raise StudioError(event.message)
    finally:
        session.end(ENDING_SECONDS)
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


def paint(root: Path, file: Path, count: int, weight: float, *, choose: bool) -> tuple[list[Pair], dict[str, Any]]:
    """`count` held-out prompts of one object each, painted by the engine without and with the LoRA in `file` at `weight`; and the engine.

    That is its `dtype`, and the `threads` of this process, which leaves them to torch, as that which trained did. Raises `StudioError` as
    the engine does.
    """
    import torch

    from bench.scenes.painter import Painter
    from studio.engine.runner import DiffusersEngine
    from studio.library import Library
    from studio.training.data.scenes.captions import plain_caption

    seeded = held_out(CHOICE if choose else REPORT, count)
    scenes = [scene for scene, _ in seeded]
    orders = [(plain_caption(scene), seed) for scene, seed in seeded]
    with contextlib.closing(Library(Paths(root))) as library:
        engine = DiffusersEngine("cpu")
        painter = Painter((engine,), library.checkpoint("sprout-v1"), cfg=CFG, library=library)
        plain = painter.all(orders, "plain")
        asked = [(f"{prompt} <lora:{file.stem}:{weight:g}>", seed) for prompt, seed in orders]
        styled = painter.all(asked, "lora")
    pairs = [Pair(*each) for each in zip(scenes, plain, styled, strict=True)]
    return pairs, {"dtype": engine.info().dtype, "threads": torch.get_num_threads()}


def held_out(sets: Sequence[tuple[int, int]], count: int) -> list[tuple[Any, int]]:
    """`count` scenes of one thing, whose combinations no training sees, in equal parts from `sets`, each with the seed of its picture."""
    from studio.training.methods.judge.groups import pick_scenes

    each = -(-count // len(sets))
    return [
        (scene, first + number)
        for seed, first in sets
        for number, (_, scene) in enumerate(pick_scenes(seed, {"single": each}, held_out=True))
    ][:count]


def judge_objects(folder: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """In what share of the pictures the judge sees the asked object, and how the fair base and the LoRA agree on it."""
    from studio.training.methods.judge.judge import Judge
    from studio.training.methods.judge.verdict import verdicts

    judge = Judge.load(folder)

    def right(pictures: Sequence[Picture]) -> list[bool]:
        return [verdicts(pair.scene, seen)["object"] for pair, seen in zip(pairs, judge.look(pictures), strict=True)]

    plain = [pair.plain for pair in pairs]
    base, lora = right([printed(each) for each in plain]), right([pair.styled for pair in pairs])
    agreement = Counter(zip(base, lora, strict=True))
    return {
        "plain": _share(right(plain)),
        "plain_after_the_rule": _share(base),
        "lora": _share(lora),
        "kept": round(sum(lora) / max(sum(base), 1), 3),
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
    return Image.fromarray(np.concatenate([np.concatenate(each, axis=1) for each in (plain, styled)]))


if __name__ == "__main__":
    sys.exit(main())
