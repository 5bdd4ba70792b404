"""What token merging gains and costs: `python launch.py bench merging [--quick] [--rounds N] [--save]`.

U-Net passes of Stable Diffusion 1.5's shapes with random weights, prompt and negative prompt together (2 rows), in the number format
and with the attention kernel that the machine chooses, one thread. What is merged depends on the weights, and so does the error; how long it
takes does not. Each round times every ratio once, forth and back again. Prints one JSON object; with `--save` it is also written to
bench/results/. `rounds` stands in it; for each size and ratio:

    seconds     processor seconds of one pass, median of 2 * rounds
    gain        how many times as fast as a pass without
    error       relative L2 difference of what the U-Net says from a pass without
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench._machine import load
from bench._models import THIN
from bench._result import RESULTS, facts, finish, has_nothing_to_keep
from studio.computing import prepare_to_compute
from studio.errors import StudioError

SIDES, QUICK_SIDES = (256, 512), (64,)
"""Pixels."""
RATIOS = (0.0, 0.25, 0.5, 0.75)
ROUNDS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print JSON; 1 when it cannot be measured (the reason is then on stderr), 2 when there is nothing to `--save`."""
    parser = argparse.ArgumentParser(prog="bench merging", description="Measure what token merging gains and costs.")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model: a check that it runs, not a figure to quote"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="two passes of every ratio each (default: %(default)s)"
    )
    parser.add_argument("--save", action="store_true", help="also write the result to bench/results/")
    options = parser.parse_args(argv)
    if has_nothing_to_keep("merging", quick=options.quick, kept=options.save):
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    prepare_to_compute()
    rounds = 1 if options.quick else options.rounds
    result = {**facts("merging", quick=options.quick), "rounds": rounds}
    try:
        result |= measure(QUICK_SIDES if options.quick else SIDES, rounds, options.quick)
    except (StudioError, OSError) as error:
        print(f"bench merging: {error}", file=sys.stderr)
        return 1
    result["load_at_end"] = load()
    return finish(result, RESULTS / "merging.json" if options.save else None)


def measure(sides: Sequence[int], rounds: int, tiny: bool) -> dict[str, Any]:
    """Format, kernel and the rows. Raises `StudioError` as `choose_hardware` does."""
    import torch
    from diffusers import UNet2DConditionModel

    from studio.engine.hardware import choose_hardware
    from studio.families.configs import shipped_config

    torch.set_num_threads(1)
    torch.manual_seed(0)
    hardware = choose_hardware("cpu")
    config = shipped_config("sd1", "unet") | (THIN["unet"] if tiny else {})
    unet = UNet2DConditionModel.from_config(config).to(hardware.dtype).eval().requires_grad_(False)
    hardware.prepare(unet)
    rows = [row for side in sides for row in _rows(unet, side, rounds)]
    return {"dtype": hardware.dtype_label, "attention": hardware.attention, "rows": rows}


def _rows(unet: Any, side: int, rounds: int) -> list[dict[str, Any]]:
    import torch

    from studio.engine.token_merging import set_merging

    x = torch.randn(2, 4, side // 8, side // 8, dtype=unet.dtype)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, dtype=unet.dtype)
    seconds: dict[float, list[float]] = {ratio: [] for ratio in RATIOS}
    said: dict[float, Any] = {}
    with torch.inference_mode():
        unet(x, 500, states, return_dict=False)  # warms up
        for ratio in (*RATIOS, *reversed(RATIOS)) * rounds:
            set_merging(unet, ratio, side // 8, side // 8)
            began = time.process_time()
            said[ratio] = unet(x, 500, states, return_dict=False)[0]
            seconds[ratio].append(time.process_time() - began)
        said = {ratio: out.float() for ratio, out in said.items()}
        error = {ratio: float((out - said[0.0]).norm() / said[0.0].norm()) for ratio, out in said.items()}
    set_merging(unet, 0, side // 8, side // 8)
    medians = {ratio: statistics.median(taken) for ratio, taken in seconds.items()}
    return [
        {
            "side": side, "ratio": ratio, "seconds": round(median, 3), "gain": round(medians[0.0] / median, 2),
            "error": float(f"{error[ratio]:.2g}"),
        }
        for ratio, median in medians.items()
    ]  # fmt: skip
