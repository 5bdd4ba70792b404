"""What a step of LoRA training costs: `python launch.py bench train [--quick] [--save] [--steps N] [--rounds N]`.

Prints one JSON object. Compared are the product's loop and the plain loop of diffusers' example in float32 and in bfloat16, on Stable
Diffusion 1.5's shapes with random weights. What is measured, and how to read it, is in `bench/README.md`. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench._machine import load
from bench._result import RESULTS, facts, finish, has_nothing_to_keep
from bench.tuning import click
from bench.tuning.contender import CONTENDERS, COUNT, RANK, SIDES
from studio.paths import REPOSITORY

ROUNDS = 2
"""Each contender trains once a round; the second goes through them backwards, so that a neighbour who comes or goes disturbs all alike."""
STEPS = 6
OURS = "studio"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when a contender failed (the reason is then on stderr), 2 when there is nothing to `--save`."""
    parser = argparse.ArgumentParser(prog="bench train", description="Measure what a step of LoRA training costs.")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: a check that it runs, no figure")
    parser.add_argument("--save", action="store_true", help="also write the result to bench/results/")
    parser.add_argument(
        "--steps", type=_steps, default=STEPS, help="measured steps a round, at least 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 10), default=ROUNDS, help="how often each trains (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if has_nothing_to_keep("train", quick=options.quick, kept=options.save):
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
            result = measure(Path(folder), quick=options.quick, steps=options.steps, rounds=options.rounds)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"bench train: {error}", file=sys.stderr)
        return 1
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return finish(result, RESULTS / f"train-{stamp}.json" if options.save else None)


def measure(root: Path, *, quick: bool, steps: int, rounds: int) -> dict[str, Any]:
    """All figures. Raises `CalledProcessError` when a contender fails, and as `click.measure`."""
    size = "thin" if quick else "real"
    head = facts("train", quick=quick)
    head["protocol"] = {
        "side": SIDES[size], "batch": 1, "rank": RANK, "layers": "attention", "pictures": COUNT, "threads": 1, "steps": steps,
        "rounds": rounds,
    }  # fmt: skip
    _process(f"make-{size}", str(root))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS[:: -1 if number % 2 else 1]:
            print(f"round {number + 1}: {name}", file=sys.stderr)
            answer = _process(name, str(root), str(steps + 1), str(number + 1))
            found[name].append(json.loads(answer.splitlines()[-1]))
            print(f"    {found[name][-1]}", file=sys.stderr)  # so that a run that is broken off leaves something
    print("a run over HTTP", file=sys.stderr)
    return {**head, **summary(found), "over_http": click.measure(root, SIDES[size]), "load_at_end": load()}


def summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Of each contender's rounds: median, least and most seconds of a step, worst U-Net share, highest peak; and ours against the others."""
    contenders = {name: _contender(rounds) for name, rounds in found.items()}
    ours = contenders[OURS]
    against = {}
    for name, other in contenders.items():
        if name != OURS:
            memory = ours["peak_gib"] / other["peak_gib"] if ours["peak_gib"] and other["peak_gib"] else None
            against[name] = {
                "times_as_fast": round(other["cpu_seconds_a_step"]["median"] / ours["cpu_seconds_a_step"]["median"], 2),
                "peak_memory": memory and round(memory, 2),
            }
    return {"contenders": contenders, "studio_against": against}


def _contender(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [each for found in rounds for each in found["cpu_seconds"]]
    peaks = [found["peak_bytes"] for found in rounds]
    return {
        "cpu_seconds_a_step": {
            "median": round(statistics.median(seconds), 3),
            "min": round(min(seconds), 3),
            "max": round(max(seconds), 3),
            "steps": len(seconds),
        },
        "unet_share": min(found["unet_share"] for found in rounds),
        "cpu_seconds_to_first_step": [found["cpu_seconds_to_first_step"] for found in rounds],
        "peak_gib": round(max(peaks) / 2**30, 2) if all(peaks) else None,
    }


def _process(*arguments: str) -> str:
    """What `bench.tuning.contender` prints, run with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench.tuning.contender", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 2 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
