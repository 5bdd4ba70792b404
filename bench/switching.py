"""What changing checkpoints and LoRAs costs: `python launch.py bench switching [--quick] [--save]`.

Stable Diffusion 1.5's shapes with random weights, two checkpoints and two LoRAs of rank 8 on every attention layer, one thread. Prints
one JSON object, in processor seconds:

    load        a checkpoint from disk (float16 files in the page cache), converted to the format that is painted in
    switch      to a checkpoint that is still in memory
    reload      to one that had to be put away, as only one may stay; ten times, with the resident memory after each
    lora_first  merging a LoRA for the first time
    lora_switch between two LoRAs that were merged before
    lora_off    back to the weights as loaded
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._machine import load, machine
from studio.errors import StudioError
from studio.paths import REPOSITORY, atomic_write

if TYPE_CHECKING:
    from studio.engine.lora import LoraStack, LoraWeights

TIMES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when it cannot be measured (the reason is then on stderr)."""
    parser = argparse.ArgumentParser(
        prog="bench switching", description="Measure what changing checkpoints and LoRAs costs."
    )
    parser.add_argument("--quick", action="store_true", help="tiny models: a check that it runs, not a figure to quote")
    parser.add_argument("--save", action="store_true", help="also write the result to bench/results/")
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    result: dict[str, Any] = {"bench": "switching", "quick": options.quick, "machine": machine()}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            result |= measure(Path(folder), tiny=options.quick)
    except (StudioError, OSError) as error:
        print(f"bench switching: {error}", file=sys.stderr)
        return 1
    result["load_at_end"] = load()
    text = json.dumps(result, indent=2)
    print(text)
    if options.save:
        atomic_write(REPOSITORY / "bench" / "results" / "switching.json", text.encode() + b"\n")
    return 0


def measure(folder: Path, *, tiny: bool) -> dict[str, Any]:
    """All figures. Raises `StudioError` as the engine does."""
    import torch

    from bench.peers.files import make
    from bench.peers.requests import Models
    from bench.peers.workloads import LORAS, SD15
    from studio.engine.lora import LoraWeights
    from studio.engine.runner import DiffusersEngine

    torch.set_num_threads(1)
    make(folder, [*SD15, *LORAS], tiny=tiny)
    models = Models(folder)
    one, two = (models.checkpoint(name) for name in SD15)
    both, single = DiffusersEngine("cpu", checkpoints=2), DiffusersEngine("cpu", checkpoints=1)
    result: dict[str, Any] = {"dtype": both.info().dtype}
    result["load"] = _summary([_seconds(lambda model=model: both.load(model)) for model in (one, two)])
    result["switch"] = _summary([_seconds(lambda model=model: both.load(model)) for model in (one, two) * (TIMES // 2)])
    pair = [[LoraWeights(Path(models.lora(name).path), 1.0, 1.0)] for name in LORAS]
    result |= _loras(both.load(one).loras, pair)
    both.close()
    single.load(one)
    seconds, resident = [], []
    for number in range(TIMES):
        seconds.append(_seconds(lambda model=(two, one)[number % 2]: single.load(model)))
        resident.append(round(single.info().memory / 2**20))
    result["reload"] = {
        **_summary(seconds),
        "resident_mib": resident,
        "spread_percent": round(100 * (max(resident) / min(resident) - 1), 1),
    }
    single.close()
    return result


def _loras(stack: LoraStack, pair: Sequence[list[LoraWeights]]) -> dict[str, Any]:
    """Merging two LoRAs, going back and forth between them, and taking them out."""
    rows = {"lora_first": pair, "lora_switch": [*pair] * (TIMES // 2), "lora_off": [[]]}
    return {
        name: _summary([_seconds(lambda wanted=each: stack.apply(wanted)) for each in row])
        for name, row in rows.items()
    }


def _seconds(action: Callable[[], Any]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 4),
        "min": round(min(seconds), 4),
        "max": round(max(seconds), 4),
        "times": len(seconds),
    }


if __name__ == "__main__":
    sys.exit(main())
