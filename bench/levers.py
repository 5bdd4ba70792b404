"""What each lever of speed gains and costs on the embedded model: `python launch.py bench levers [--quick] [--count N] [--save]`.

One thread, one process. Every lever paints the same held-out prompts with the same seeds as the reference (float32, everything
computed); prints one JSON object, and with `--save` writes the table of `docs/speed.md`. For each lever:

    seconds     processor seconds of one picture, median
    mean, most  distance of its pictures from the reference's, in 8-bit levels
    object      share of pictures in which the judge (bench/judge) finds the object that was asked for, with Wilson's 95 % interval
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench._machine import load, machine
from bench._models import find_model
from studio.errors import StudioError
from studio.paths import REPOSITORY, atomic_write

if TYPE_CHECKING:
    from bench.scenes.painter import Painter
    from bench.scenes.prompts import Prompt
    from studio.training.methods.judge.judge import Judge, Picture

COUNT, QUICK_COUNT = 96, 1
STEPS = 20
PAGE = REPOSITORY / "docs" / "speed.md"
BEGIN, END = "<!-- levers: written by bench levers -->", "<!-- levers: end -->"
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
    """Measure, print JSON; 1 when it cannot be measured (the reason is then on stderr)."""
    parser = argparse.ArgumentParser(
        prog="bench levers", description="Measure what levers of speed gain, and what they cost."
    )
    parser.add_argument("--quick", action="store_true", help="few pictures: a check that it runs")
    parser.add_argument("--count", type=int, default=COUNT, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="write the table of docs/speed.md")
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    facts = {"bench": "levers", "quick": options.quick, "machine": machine()}
    try:
        rows = measure(QUICK_COUNT, steps=3) if options.quick else measure(options.count)
        result = {**facts, "rows": rows, "load_at_end": load()}
        if options.save:
            write_page(result)
    except (StudioError, OSError) as error:
        print(f"bench levers: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=2))
    return 0


def measure(count: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """A row for each lever, over `count` prompts of one object. Raises `StudioError` as the engine does."""
    import torch

    from bench.scenes.painter import Painter
    from bench.scenes.prompts import held_out_prompts
    from studio.engine.runner import DiffusersEngine
    from studio.training.methods.judge.judge import Judge

    torch.set_num_threads(1)
    judge = Judge.load(REPOSITORY / "bench" / "judge")
    prompts = [prompt for prompt in held_out_prompts(4 * count) if prompt.group == "single"][:count]
    exact, fast = (DiffusersEngine("cpu", precision=name) for name in ("fp32", "auto"))
    base = Painter((exact,), find_model("sprout-v1"), steps=steps)
    rows: list[dict[str, Any]] = []
    reference: list[Picture] = []
    for name, changes in LEVERS.items():
        painter = replace(base, **changes) if name == REFERENCE else replace(base, engines=(fast,), **changes)
        seconds, pictures = painted(painter, prompts)
        reference = reference or pictures
        engine = exact if name == REFERENCE else fast
        rows.append({"lever": name, "dtype": engine.info().dtype, **row(judge, prompts, seconds, pictures, reference)})
        print(f"{name}: {rows[-1]['seconds']} s", file=sys.stderr)
    return rows


def painted(painter: Painter, prompts: Sequence[Prompt]) -> tuple[list[float], list[Picture]]:
    """Processor seconds and picture of each prompt; one unmeasured picture goes ahead."""
    painter("a warm-up", 0)
    seconds, pictures = [], []
    for prompt in prompts:
        began = time.process_time()
        pictures.append(painter(*prompt.order))
        seconds.append(time.process_time() - began)
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
    """Put the table between its marks in `docs/speed.md`. Raises `OSError`."""
    rows = result["rows"]
    lines = [
        f"{rows[0]['pictures']} held-out prompts of sprout-v1, one thread, {result['machine']['processor']}, load average "
        f"{result['machine']['load_at_start']} to {result['load_at_end']}.",
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
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    atomic_write(PAGE, f"{before}{BEGIN}\n\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}".encode())


if __name__ == "__main__":
    sys.exit(main())
