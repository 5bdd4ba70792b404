"""What the levers of speed gain that are always on, and what they change: `python launch.py bench exact [--quick] [--rounds N] [--save]`.

Pictures of Stable Diffusion 1.5's shapes with random weights (256 px, 4 steps, Euler on Uniform, CFG 7), painted by the program's own worker
processes, one thread each: one with everything, one without the lever (`--without`, or another flag), in turn, ABBA, both warm. In the number format of the
machine, and in float32. Prints one JSON object, and with `--save` writes the table of `docs/speed.md`. For each lever and format:

    seconds     processor seconds of a picture with everything, median
    without     the same without the lever
    most, mean  how far the pictures with and without are apart, in 8-bit levels
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._code import named
from bench._machine import described, load
from bench._result import facts, finish, has_nothing_to_keep
from bench.peers.report import rewritten
from studio.errors import StudioError
from studio.paths import REPOSITORY, atomic_write
from studio.schema.levers import LEVERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.peers.requests import Models
    from bench.peers.workloads import Job
    from studio.engine.worker_client import WorkerEngine

ROUNDS = 3
PAGE = REPOSITORY / "docs" / "speed.md"
MARKS = ("<!-- exact: written by bench exact -->", "<!-- exact: end -->")
SDPA = "chunked attention"
FLAGS: Mapping[str, dict[str, str]] = {SDPA: {"attention": "sdpa"}} | {
    name: {"without": name} for name in LEVERS if name != "decoding-beside"
}
"""How each is taken away. What is decoded beside is a matter of cards, and of whole jobs."""
WITH_LORAS = ("kept-merges",)
"""What shows only where two LoRAs are used in turn."""
FORMATS = ("auto", "fp32")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when it cannot be measured or kept (the reason is then on stderr), 2 when there is nothing to `--save`."""
    parser = argparse.ArgumentParser(
        prog="bench exact", description="Measure what levers of speed gain that change no picture."
    )
    parser.add_argument("--quick", action="store_true", help="tiny models: a check that it runs, not a figure to quote")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="two pictures of each a round (default: %(default)s)"
    )
    parser.add_argument("--save", action="store_true", help="write the table of docs/speed.md")
    options = parser.parse_args(argv)
    if has_nothing_to_keep("exact", quick=options.quick, kept=options.save):
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers
    os.environ.pop("THP_MEM_ALLOC_ENABLE", None)  # or one without huge pages had them all the same
    rounds = 1 if options.quick else options.rounds
    result = {**facts("exact", quick=options.quick), "rounds": rounds}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            result["rows"] = measure(Path(folder), rounds, tiny=options.quick)
        result["load_at_end"] = load()
        finish(result)
        if options.save:
            write_page(result)
    except (StudioError, OSError, ValueError) as error:
        print(f"bench exact: {error}", file=sys.stderr)
        return 1
    return 0


def measure(folder: Path, rounds: int, *, tiny: bool) -> list[dict[str, Any]]:
    """A row for each lever and format. Raises `StudioError` as the engine does."""
    from bench.peers.files import make
    from bench.peers.requests import Models
    from bench.peers.workloads import LORAS, SD15

    make(folder, [SD15[0], *LORAS], tiny=tiny)
    models, rows = Models(folder), list[dict[str, Any]]()
    for precision in FORMATS:
        with _worker(precision) as whole:
            for name, flags in FLAGS.items():
                print(f"{name}, {precision}", file=sys.stderr)
                with _worker(precision, **flags) as lacking:
                    rows.append(_row(models, name, (whole, lacking), rounds, tiny))
    return rows


@contextlib.contextmanager
def _worker(precision: str, **flags: str) -> Iterator[WorkerEngine]:
    """A worker process of the program."""
    from studio.engine.worker_client import WorkerEngine

    with contextlib.closing(WorkerEngine("cpu", precision=precision, **flags)) as engine:
        yield engine


def _row(models: Models, name: str, pair: tuple[WorkerEngine, WorkerEngine], rounds: int, tiny: bool) -> dict[str, Any]:
    """One lever in one format: the worker with everything and the one without the lever in turn."""
    import numpy as np

    from bench.peers.workloads import WORKLOADS

    loras = WORKLOADS["W6"].loras if name in WITH_LORAS else ("",)
    workload = replace(WORKLOADS["W6"], loras=loras, turns=1)
    jobs = (workload.tiny() if tiny else workload).jobs(0)
    pictures = [[_painted(engine, models, job)[1] for job in jobs] for engine in pair]  # warms up
    seconds: list[list[float]] = [[], []]
    for which in (0, 1, 1, 0) * rounds:
        seconds[which].append(statistics.mean(_painted(pair[which], models, job)[0] for job in jobs))
    apart = np.abs(np.stack(pictures[0]).astype(int) - np.stack(pictures[1]))
    return {
        "lever": name, "dtype": pair[0].info().dtype, "seconds": round(statistics.median(seconds[0]), 3),
        "without": round(statistics.median(seconds[1]), 3), "most": int(apart.max()), "mean": round(float(apart.mean()), 3),
    }  # fmt: skip


def _painted(engine: WorkerEngine, models: Models, job: Job) -> tuple[float, NDArray[np.uint8]]:
    """Processor seconds of the worker for a job of one picture, and the picture [H, W, 3]."""
    import numpy as np
    import psutil
    from PIL import Image

    from bench.peers.requests import asked
    from studio.schema.engine import CancelToken
    from studio.schema.events import ImageReady

    def spent() -> float:
        pid = engine.info().pid
        times = psutil.Process(pid).cpu_times() if pid else None
        return times.user + times.system if times else 0.0

    began = spent()
    events = list(engine.run(asked(job, models), CancelToken()))
    (png,) = [event.png for event in events if isinstance(event, ImageReady)]
    return spent() - began, np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def write_page(result: Mapping[str, Any]) -> None:
    """Put the table between its marks in `docs/speed.md`. Raises `ValueError` when they are not there, `OSError` and `StorageError`."""
    lines = [
        f"`python launch.py bench exact --rounds {result['rounds']} --save`: a picture of 256 px and 4 steps with Stable Diffusion 1.5's shapes, one thread, {described(result['machine'])}, "
        f"{named(result['code'])}, load average {result['machine']['load_at_start']} to {result['load_at_end']}.",
        "",
        "| without | format | processor s a picture | with everything | differ by at most | mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        name = row["lever"] if row["lever"] not in LEVERS else f"`{row['lever']}`"
        lines.append(
            f"| {name} | {row['dtype']} | {row['without']:.2f} | {row['seconds']:.2f} | {row['most']} of 255 | {row['mean']:.3f} |"
        )
    atomic_write(PAGE, rewritten(PAGE.read_text("utf-8"), "\n".join([*lines, ""]), MARKS).encode())


if __name__ == "__main__":
    sys.exit(main())
