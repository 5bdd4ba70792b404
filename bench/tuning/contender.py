"""One contender of `bench train` in a process of its own: `python -m bench.tuning.contender NAME ROOT STEPS SEED`; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bench._models import THIN, random_sd15

CONTENDERS = ("studio", "plain_bf16", "plain_fp32")
MODEL, PICTURES = "sd15-shapes", "pictures"
SIDES = {"real": 256, "thin": 64}
COUNT, RANK = 16, 8
RECIPE = """
name = "bench"
seed = {seed}
precision = "bf16"

[method]
kind = "lora"
model = "{model}"
steps = {steps}
batch = 1
data = {{ path = "{pictures}", resolution = {side} }}
network = {{ rank = {rank}, layers = "attention" }}
loss = {{ min_snr_gamma = 0 }}
validation = {{ share = 0 }}
"""


def make(root: Path, *, thin: bool) -> None:
    """The model and the pictures, all random, in a data folder of the program."""
    random_sd15(root / "checkpoints" / MODEL, THIN if thin else None)
    (root / PICTURES).mkdir()
    rng, side = np.random.default_rng(0), SIDES["thin" if thin else "real"]
    for index in range(COUNT):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(root / PICTURES / f"{index:02d}.png")
        (root / PICTURES / f"{index:02d}.txt").write_text(f"a picture of things, number {index}")


def train_studio(root: Path, side: int, steps: int, seed: int) -> None:
    """The product's own run, from recipe to file, as its worker does it."""
    import torch

    from studio.paths import Paths
    from studio.training.context import TrainingContext
    from studio.training.methods import run_method
    from studio.training.runs import prepare_run

    recipe = root / f"bench-{seed}.toml"
    recipe.write_text(
        RECIPE.format(seed=seed, model=MODEL, steps=steps, pictures=PICTURES, side=side, rank=RANK), encoding="utf-8"
    )
    run = prepare_run(recipe, Paths(root).runs)
    run_method(TrainingContext(run.config(), run, device=torch.device("cpu")))


def main(arguments: list[str]) -> int:
    """Make what is trained (`make-real`, `make-thin`), or train as one contender."""
    name, root, *rest = arguments
    folder = Path(root)
    if name.startswith("make-"):
        make(folder, thin=name == "make-thin")
        return 0
    import torch

    from bench.tuning.meter import Meter
    from bench.tuning.plain import train

    with Image.open(folder / PICTURES / "00.png") as first:
        side = first.width
    steps, seed = (int(each) for each in rest)
    meter = Meter()
    if name == "studio":
        train_studio(folder, side, steps, seed)
    else:
        dtype = {"plain_bf16": torch.bfloat16, "plain_fp32": torch.float32}[name]
        train(folder / "checkpoints" / MODEL, folder / PICTURES, side=side, rank=RANK, steps=steps, dtype=dtype)
    print(json.dumps(meter.figures()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
