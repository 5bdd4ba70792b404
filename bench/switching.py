"""What changing checkpoints and LoRAs costs: `python launch.py bench switching [--quick] [--save]`.

Stable Diffusion 1.5's shapes with random weights, two checkpoints and two LoRAs of rank 8 on every attention layer, one thread. Prints
one JSON object, in processor seconds:

    load        a checkpoint for the first time (float16 files in the page cache): converted to the format that is painted in, its copy written
    switch      to a checkpoint that is still in memory
    reload      to one that had to be put away, as only one may stay; ten times, each with its first U-Net pass and the one after (256 px, two
                prompts), because weights are packed in the former, the load and what the former takes longer together, and the resident
                memory after them
    reload_without  the same with no copies on disk, four times
    lora_first  merging a LoRA for the first time
    lora_switch between two LoRAs that were merged before
    lora_off    back to the weights as loaded

and `goals`: what a load, a change of LoRAs and the memory after ten loads may come to, what was measured, and whether that is met.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench._machine import load
from bench._result import RESULTS, facts, finish, has_nothing_to_keep
from studio.computing import prepare_to_compute
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.engine.loading import LoadedModel
    from studio.engine.lora import LoraStack, LoraWeights
    from studio.engine.runner import DiffusersEngine
    from studio.schema.models import ModelInfo

TIMES = 10
GOALS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "processor seconds of a load with a copy, and what the first pass after it takes longer": (
        ("reload", "with_first_pass"),
        0.8,
    ),
    "processor seconds of a change between two LoRAs": (("lora_switch", "median"), 0.05),
    "per cent between the least and the most memory after ten loads": (("reload", "spread_percent"), 5.0),
}
"""Where each stands in the result, and the most that it may be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when it cannot be measured (the reason is then on stderr), 2 when there is nothing to `--save`."""
    parser = argparse.ArgumentParser(
        prog="bench switching", description="Measure what changing checkpoints and LoRAs costs."
    )
    parser.add_argument("--quick", action="store_true", help="tiny models: a check that it runs, not a figure to quote")
    parser.add_argument("--save", action="store_true", help="also write the result to bench/results/")
    options = parser.parse_args(argv)
    if has_nothing_to_keep("switching", quick=options.quick, kept=options.save):
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    prepare_to_compute()
    result = facts("switching", quick=options.quick)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            result |= measure(Path(folder), tiny=options.quick)
    except (StudioError, OSError) as error:
        print(f"bench switching: {error}", file=sys.stderr)
        return 1
    result["goals"] = goals(result)
    result["load_at_end"] = load()
    return finish(result, RESULTS / "switching.json" if options.save else None)


def measure(folder: Path, *, tiny: bool) -> dict[str, Any]:
    """All figures. Raises `StudioError` as the engine does."""
    import torch

    from bench.peers.files import make
    from bench.peers.requests import Models
    from bench.peers.workloads import LORAS, SD15
    from studio.engine.loading_copies import Copies
    from studio.engine.lora import LoraWeights
    from studio.engine.runner import DiffusersEngine

    torch.set_num_threads(1)
    make(folder, [*SD15, *LORAS], tiny=tiny)
    models = Models(folder)
    one, two = (models.checkpoint(name) for name in SD15)
    copies = Copies(folder / "converted", 10**11)
    both = DiffusersEngine("cpu", checkpoints=2, copies=copies)
    result: dict[str, Any] = {"dtype": both.info().dtype}
    result["load"] = _summary([_seconds(lambda model=model: both.load(model)) for model in (one, two)])
    result["switch"] = _summary([_seconds(lambda model=model: both.load(model)) for model in (one, two) * (TIMES // 2)])
    pair = [[LoraWeights(Path(models.lora(name).path), 1.0, 1.0)] for name in LORAS]
    result |= _loras(both.load(one).loras, pair)
    both.close()
    side = 64 if tiny else 256
    result["reload"] = _reloads(DiffusersEngine("cpu", checkpoints=1, copies=copies), (one, two), TIMES, side)
    result["reload_without"] = _reloads(DiffusersEngine("cpu", checkpoints=1), (one, two), 4, side)
    return result


def goals(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What of `GOALS` is met."""
    found = {}
    for what, (keys, most) in GOALS.items():
        value = functools.reduce(lambda inner, key: inner[key], keys, result)
        found[what] = {"at_most": most, "measured": value, "met": value <= most}
    return found


def _reloads(engine: DiffusersEngine, pair: tuple[ModelInfo, ModelInfo], times: int, side: int) -> dict[str, Any]:
    """Going to and fro between two checkpoints of which one stays in memory, with two U-Net passes after each load."""
    engine.load(pair[0])
    rows, resident = list[tuple[float, ...]](), list[int]()
    for number in range(times):
        info = pair[1 - number % 2]
        load_seconds = _seconds(lambda wanted=info: engine.load(wanted))
        passes = [_seconds(lambda wanted=info: _unet_pass(engine.load(wanted).model, side)) for _ in range(2)]
        rows.append((load_seconds, *passes))
        resident.append(round(engine.info().memory / 2**20))
    engine.close()
    seconds, first, later = zip(*rows, strict=True)
    return {
        **_summary(seconds),
        "with_first_pass": round(statistics.median(loading + one - other for loading, one, other in rows), 4),
        "first_pass": _summary(first),
        "later_pass": _summary(later),
        "resident_mib": resident,
        "spread_percent": round(100 * (max(resident) / min(resident) - 1), 1),
    }


def _unet_pass(model: LoadedModel, side: int) -> None:
    """Prompt and negative prompt at once."""
    import torch

    from bench.peers.tensors import probe

    dtype = model.unet.dtype
    latents, timesteps, states = probe(
        model.latent.channels, side // model.latent.scale, model.unet.config.cross_attention_dim
    )
    with torch.inference_mode():
        model.unet(latents.to(dtype), timesteps, states.to(dtype), return_dict=False)


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
