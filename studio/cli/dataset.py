"""`dataset PATH`: what a data set for training holds, before anything starts; captions for its pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from studio.cli.options import add_common, add_fields, given, open_settings, say
from studio.errors import InvalidRequest
from studio.schema.training_data import DatasetReport, DatasetSettings, SizeCount, make_dataset_settings

if TYPE_CHECKING:
    from studio.datasets import Datasets

FIELDS = tuple(name for name in DatasetSettings.model_fields if name != "path")
SHOWN = 10
STEP = 2.0
"""Seconds between two lines about progress."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of `dataset`."""
    parser = subparsers.add_parser("dataset", help="show what a data set for training holds; write captions for it")
    parser.add_argument(
        "path", metavar="PATH", help="a folder, a .parquet file, or a .zip, which is unpacked into datasets/"
    )
    parser.add_argument(
        "--epochs", type=int, default=1, metavar="N", help="how often a run goes through it (default 1)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures in one step (default 1)")
    parser.add_argument("--seconds-per-step", type=float, metavar="S", help="as measured, to say how long a run takes")
    parser.add_argument(
        "--caption",
        metavar="NAME",
        help="first write captions for pictures without one: file-name, or blip (docs/training.md)",
    )
    parser.add_argument(
        "--replace-captions", action="store_true", help="with --caption: write over captions that are there"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    add_fields(parser, DatasetSettings, FIELDS)
    add_common(parser, ())
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the report. 0 also when some files cannot be used: the report names them."""
    from studio.datasets import Datasets

    for name in ("epochs", "batch"):
        if not 1 <= getattr(arguments, name) <= 1_000_000:
            raise InvalidRequest(f"{name} = {getattr(arguments, name)} is not possible: 1 to 1000000 are.", field=name)
    machine, paths, _ = open_settings(arguments)
    datasets = Datasets(paths)
    settings = _settings(arguments, datasets)
    if arguments.caption:
        done = datasets.caption(
            settings,
            arguments.caption,
            device=machine.device,
            replace=arguments.replace_captions,
            progress=_tell("captions"),
        )
        say(f"captions written: {done.written}, kept: {done.kept}")
        for problem in done.problems[:SHOWN]:
            say(problem)
    report = datasets.inspect(
        settings,
        epochs=arguments.epochs,
        batch=arguments.batch,
        seconds_per_step=arguments.seconds_per_step,
        progress=_tell("pictures"),
    )
    print(report.model_dump_json(indent=2) if arguments.json else "\n".join(lines(report)))
    return 0


def _settings(arguments: argparse.Namespace, datasets: Datasets) -> DatasetSettings:
    """What is asked for, validated; a ZIP file is unpacked first."""
    path = Path(arguments.path).expanduser().resolve()
    settings = make_dataset_settings({**given(arguments, FIELDS), "path": str(path)})
    if path.is_file() and path.suffix.lower() == ".zip":
        unpacked = datasets.add_archive(path, path.stem, _tell("bytes"))
        settings = datasets.placed(settings.model_copy(update={"path": ""}), unpacked.folder.name, anywhere=True)
        say(f"unpacked to {settings.path}")
        for name in unpacked.left_out[:SHOWN]:
            say(f"left out, as no data set is made of such files: {name}")
        if (more := len(unpacked.left_out) - SHOWN) > 0:
            say(f"and {more} more")
    return settings


def lines(report: DatasetReport) -> list[str]:
    """The report for people."""
    tokens, run = report.tokens, report.expectation
    shown = [
        f"{report.path}",
        f"format      {report.format}",
        f"pictures    {report.pictures}"
        + (f", {report.enlarged} smaller than what they are brought to" if report.enlarged else ""),
        f"sizes       {_sizes(report.sizes, report.size_count)}",
        f"brought to  {_sizes(report.buckets, len(report.buckets))}",
        f"captions    {report.captions} different; {report.without_caption_count} pictures without",
        f"tokens      {tokens.shortest} to {tokens.longest}, median {tokens.median:g}; {tokens.over_75} captions above 75",
        f"duplicates  {report.duplicate_count}",
        f"run         {run.samples} pictures an epoch, {run.epochs} epochs in batches of {run.batch}: {run.steps} steps"
        + (f", about {_clock(run.seconds)}" if run.seconds is not None else ""),
        f"cache       {run.cache_bytes / 2**20:,.1f} MB of latents and text embeddings",
        f"digest      {report.digest[:16]}",
    ]
    shown += [f"note        {note}" for note in report.notes]
    shown += [f"same        {' = '.join(same.names[:4])}" for same in report.duplicates[:SHOWN]]
    shown += [f"no caption  {name}" for name in report.without_caption[:SHOWN]]
    shown += [f"unusable    {problem}" for problem in report.problems[:SHOWN]]
    hidden = report.problem_count - min(SHOWN, len(report.problems))
    return shown + ([f"            … and {hidden} more; --json lists a hundred"] if hidden else [])


def _sizes(sizes: tuple[SizeCount, ...], count: int) -> str:
    text = ", ".join(f"{size.width}x{size.height}: {size.count}" for size in sizes[:SHOWN])
    return text + (f" and {count - SHOWN} other sizes" if count > SHOWN else "")


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _tell(what: str) -> Callable[[int, int], None]:
    """Progress as a line now and then: short work says nothing."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= STEP:
            said = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    return progress
