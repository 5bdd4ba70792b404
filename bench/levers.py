"""What each lever of speed gains and costs on the embedded model: `python launch.py bench levers [--quick] [--count N] [--save]`.

One thread, one process. Every lever paints the same held-out prompts with the same seeds as the reference (float32, everything
computed), all of them one prompt before any of them the next; prints one JSON object, and with `--save` writes the table of `docs/speed.md`.
For each lever:

    seconds     processor seconds of one picture, median
    mean, most  distance of its pictures from the reference's, in 8-bit levels
    object      share of pictures in which the judge (bench/judge) finds the object that was asked for, with Wilson's 95 % interval
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench._code import named
from bench._machine import described, load
from bench._models import find_model
from bench._result import facts, finish, has_nothing_to_keep
from bench.peers.report import rewritten
from studio.computing import prepare_to_compute
from studio.errors import StudioError
from studio.paths import REPOSITORY, atomic_write

if TYPE_CHECKING:
    from bench.scenes.painter import Painter
    from bench.scenes.prompts import Prompt
    from studio.training.methods.judge.judge import Judge, Picture

COUNT, QUICK_COUNT = 96, 1
STEPS = 20
PAGE = REPOSITORY / "docs" / "speed.md"
MARKS = ("<!-- levers: written by bench levers -->", "<!-- levers: end -->")
REFERENCE = "everything, in float32"
LEVERS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "the fastest number format of the machine": {},
    "and DeepCache interval 2": {"changes": {"deep_cache": 2}},
    "and DeepCache interval 3": {"changes": {"deep_cache": 3}},
    "and Skip Early CFG 0.2": {"changes": {"sampler_options": {"skip_early_cond": 0.2}}},
    "and NGMS 1, every other step": {"changes": {"sampler_options": {"s_min_uncond": 1.0}}},
    "and NGMS 1, all steps": {"changes": {"sampler_options": {"s_min_uncond": 1.0, "s_min_uncond_all": True}}},
    "and FP8 weights": {"changes": {"fp8_weight": "Enable"}},
    "and 6 steps, SGM Uniform": {"steps": 6, "schedule": "SGM Uniform"},
}
"""What differs from the painter of `bench sprout` (20 steps, Karras, CFG 4). All but the reference choose the number format by themselves."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when it cannot be measured or kept (the reason is then on stderr), 2 when there is nothing to `--save`."""
    parser = argparse.ArgumentParser(
        prog="bench levers", description="Measure what levers of speed gain, and what they cost."
    )
    parser.add_argument("--quick", action="store_true", help="few pictures: a check that it runs")
    parser.add_argument("--count", type=int, default=COUNT, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the table of docs/speed.md")
    options = parser.parse_args(argv)
    if has_nothing_to_keep("levers", quick=options.quick, kept=options.save):
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    prepare_to_compute()
    result = facts("levers", quick=options.quick)
    try:
        result["rows"] = measure(QUICK_COUNT, steps=3) if options.quick else measure(options.count)
        result["load_at_end"] = load()
        finish(result)
        if options.save:
            write_page(result)
    except (StudioError, OSError, ValueError) as error:
        print(f"bench levers: {error}", file=sys.stderr)
        return 1
    return 0


def measure(count: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """A row for each lever, over `count` prompts of one object. Raises `StudioError` as the engine does.

    Each lever has an engine of its own: none finds a prompt that another has encoded, or waits for weights to be stored another way.
    """
    import torch

    from bench.scenes.painter import Painter
    from bench.scenes.prompts import held_out_prompts
    from studio.engine.runner import DiffusersEngine
    from studio.training.methods.judge.judge import Judge

    torch.set_num_threads(1)
    judge = Judge.load(REPOSITORY / "bench" / "judge")
    prompts = [prompt for prompt in held_out_prompts(4 * count) if prompt.group == "single"][:count]
    base = Painter((), find_model("sprout-v1"), steps=steps)
    engines = {name: DiffusersEngine("cpu", precision="fp32" if name == REFERENCE else "auto") for name in LEVERS}
    painters = {name: replace(base, engines=(engines[name],), **changes) for name, changes in LEVERS.items()}
    seconds, pictures = painted(painters, prompts)
    return [
        {
            "lever": name,
            "dtype": engine.info().dtype,
            **row(judge, prompts, seconds[name], pictures[name], pictures[REFERENCE]),
        }
        for name, engine in engines.items()
    ]


def painted(
    painters: Mapping[str, Painter], prompts: Sequence[Prompt]
) -> tuple[dict[str, list[float]], dict[str, list[Picture]]]:
    """By painter, the processor seconds and the picture of each prompt. Each paints one unmeasured picture first.

    All paint a prompt before any paints the next, so that a neighbour who comes or goes disturbs all alike.
    """
    for painter in painters.values():
        painter("a warm-up", 0)
    seconds: dict[str, list[float]] = {name: [] for name in painters}
    pictures: dict[str, list[Picture]] = {name: [] for name in painters}
    for number, prompt in enumerate(prompts, 1):
        for name, painter in painters.items():
            began = time.process_time()
            pictures[name].append(painter(*prompt.order))
            seconds[name].append(time.process_time() - began)
        print(f"prompt {number} of {len(prompts)}", file=sys.stderr)
    return seconds, pictures


def row(
    judge: Judge, prompts: Sequence[Prompt], seconds: list[float], pictures: list[Picture], reference: list[Picture]
) -> dict[str, Any]:
    """The figures of one lever."""
    import numpy as np

    from bench.scenes.figures import judged, shares

    distances = [np.abs(one.astype(int) - two) for one, two in zip(pictures, reference, strict=True)]
    return {
        "pictures": len(pictures),
        "seconds": round(statistics.median(seconds), 3),
        "mean": round(float(np.mean([distance.mean() for distance in distances])), 2),
        "most": int(max(distance.max() for distance in distances)),
        "object": shares(judged(judge, prompts, pictures), ("object",))["object"],
    }


def write_page(result: dict[str, Any]) -> None:
    """Put the table between its marks in `docs/speed.md`. Raises `ValueError` when they are not there, `OSError` and `StorageError`."""
    rows = result["rows"]
    count = rows[0]["pictures"]
    lines = [
        f"{count} held-out prompts of sprout-v1 (`--count {count}`), all levers in turn at each, one thread, {described(result['machine'])}, "
        f"{named(result['code'])}, load average {result['machine']['load_at_start']} to {result['load_at_end']}.",
        "",
        "| what is computed | format | processor s a picture | as fast | differs by, mean | most | object right |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in rows:
        gain = rows[0]["seconds"] / each["seconds"]
        found = each["object"]
        low, high = found["interval"]
        lines.append(
            f"| {each['lever']} | {each['dtype']} | {each['seconds']:.2f} | {gain:.2f}x | {each['mean']:.2f} of 255 | {each['most']} "
            f"| {found['share']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    table = "\n".join([*lines, ""])
    atomic_write(PAGE, rewritten(PAGE.read_text("utf-8"), table, MARKS).encode())


if __name__ == "__main__":
    sys.exit(main())
