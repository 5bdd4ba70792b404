"""How well the embedded model paints what it is asked: `python launch.py bench sprout [--quick] [--out DIR] [--card]`.

Prints one JSON object; progress goes to stderr. Pictures come from the product's own engine, verdicts from a judge that was
trained apart, on drawings (`bench/judge`, made by `recipes/judge.toml`), and from pixel rules. What is measured, and how to
read it, is in `bench/README.md`. Drawing needs the Debian package `fonts-noto-color-emoji`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench._machine import load, threads
from bench._models import find_model
from bench._result import facts, finish, has_nothing_to_keep
from studio.computing import prepare_to_compute
from studio.engine.worker_client import WorkerEngine
from studio.errors import IncompatibleFile, StudioError
from studio.paths import REPOSITORY
from studio.schema.models import ModelInfo

if TYPE_CHECKING:
    from bench.scenes.measure import Measurement

EMBEDDED = "sprout-v1"
JUDGE = REPOSITORY / "bench" / "judge"
SHEET = 48
"""Pictures on the contact sheet: the first ones, whatever they look like."""
SHEET_NAME = "contact_sheet.jpg"
MOST_WORKERS = 8
FEWEST = 24
"""Prompts of which every group has one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON, write what was asked for; 1 when it cannot be measured or written (the reason is then on stderr).

    2 when there are no figures for a `--card`.
    """
    options = _parser().parse_args(argv)
    if has_nothing_to_keep("sprout", quick=options.quick, kept=options.card, flag="--card"):
        return 2
    prepare_to_compute()
    try:
        model = _folder(find_model(options.model))
        measurement = _measured(model, options)
        failed = finish(measurement.result, options.out and options.out / "figures.json")
        if options.out and not failed:
            _write_sheet(measurement, options.out)
        if options.card:
            _fill_card(measurement, Path(model.path))
    except (StudioError, OSError) as error:
        print(f"bench sprout: {error}", file=sys.stderr)
        return 1
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench sprout", description="Measure how well a model paints what it is asked."
    )
    parser.add_argument(
        "--model", default=EMBEDDED, help="name of a checkpoint, or a diffusers folder (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=_count, help=f"held-out prompts, at least {FEWEST}; figures are quoted for the default, 512"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few pictures: a check that it runs, not a figure to quote"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for figures.json and the contact sheet")
    parser.add_argument(
        "--card", action="store_true", help="write figures and contact sheet into the model's README.md"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < FEWEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {FEWEST} on")
    return int(text)


def _folder(model: ModelInfo) -> ModelInfo:
    if model.layout != "folder":
        raise IncompatibleFile(f"{model.name} is a single file; a diffusers folder is needed here.", field="model")
    return model


def _measured(model: ModelInfo, options: argparse.Namespace) -> Measurement:
    from bench.scenes.measure import QUICK, Amounts, Measurement, measure
    from studio.engine.hardware import usable_cores
    from studio.training.methods.judge.judge import Judge

    amounts = QUICK if options.quick else Amounts()
    if options.count is not None:
        amounts = replace(amounts, prompts=options.count)
    head = facts("sprout", quick=options.quick)
    head["model"] = {"name": model.name, "id": model.model_id, "bytes": model.size}
    judge = Judge.load(JUDGE)
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(contextlib.closing(engine))
            for engine in _single_threaded(min(MOST_WORKERS, usable_cores()))
        ]
        timed = stack.enter_context(contextlib.closing(WorkerEngine()))
        found = measure(engines, timed, model, judge, amounts)
        head["engine"] = {"dtype": timed.info().dtype, "threads": {"painted": 1, "timed": threads()}}
    return Measurement({**head, **found.result, "load_at_end": load()}, found.prompts, found.pictures)


def _single_threaded(count: int) -> list[WorkerEngine]:
    """Workers of one thread each: so small a model paints most pictures a second that way. Started here, as they take over what
    the environment says."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        engines = [WorkerEngine() for _ in range(count)]
        for engine in engines:
            engine.start()
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return engines


def _write_sheet(measurement: Measurement, folder: Path) -> None:
    from studio.training.data.scenes.sheet import contact_sheet

    captions = [prompt.text for prompt in measurement.prompts[:SHEET]]
    contact_sheet(captions, measurement.pictures[:SHEET]).save(folder / SHEET_NAME, quality=88)


def _fill_card(measurement: Measurement, folder: Path) -> None:
    from bench.scenes.figures import card_block
    from studio.training.card import fill_card

    fill_card(folder / "README.md", card_block(measurement.result))
    _write_sheet(measurement, folder)


if __name__ == "__main__":
    sys.exit(main())
