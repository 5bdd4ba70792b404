"""A contender's process: `python -m bench.peers.worker NAME ROOT DEVICE [CHECKOUT]`. A question a line on stdin, an answer a line on stdout.

| question | what happens | answer |
|---|---|---|
| `{"do": "prove", "job": {...}, "out": FILE}` | one batch is painted; it and one U-Net pass are written to FILE (.npz) | `dtype`, `torch` (its version), `seconds` (loading included), `card` |
| `{"do": "run", "jobs": [...]}` | all are painted | `wall`, `cpu`: seconds, all threads together; `models`: those of `cpu` in model calls, or null; `pictures` |
| `{"do": "bare", "jobs": [...]}` | only their model calls are made, by the program | the same |

Every answer has `peak_bytes`, and `card_peak_bytes`: the most that was allocated on the card while it was answered, null without one. One that could
not be given is `{"error": ...}`. On a card all seconds last until its work is done.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench._machine import peak_bytes
from bench.peers.card import Card, NoCard
from bench.peers.contender import Bare, Contender, MissingDependency, create, is_ours
from bench.peers.workloads import Job


def main(arguments: list[str]) -> int:
    """Answer until stdin ends."""
    name, root, device, *rest = arguments
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    if is_ours(name):
        from studio.computing import prepare_to_compute

        prepare_to_compute()
    try:
        import torch

        if device == "cpu":
            torch.set_num_threads(1)
        contender = create(name, Path(root), device, Path(rest[0]) if rest else None)
    except MissingDependency as error:
        _say(answers, {"error": str(error)})
        return 1
    for line in sys.stdin:
        try:
            found = _answer(contender, json.loads(line), Card() if device == "cuda" else NoCard())
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        _say(answers, {**found, "peak_bytes": peak_bytes()})
    return 0


def _answer(contender: Contender, question: dict[str, Any], card: Card | NoCard) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    if question["do"] == "prove":
        import torch

        job = Job.parse(question["job"])
        unet, pictures = contender.unet(job), contender.paint(job)
        decoded = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures]
        np.savez(question["out"], unet=unet, pictures=np.asarray(decoded, np.uint8))
        seconds = time.perf_counter() - wall
        return {"dtype": contender.dtype, "torch": str(torch.__version__), "seconds": seconds, "card": card.facts()}
    jobs, count = [Job.parse(values) for values in question["jobs"]], 0
    before = contender.model_seconds
    if question["do"] == "bare":
        assert isinstance(contender, Bare), "asked of the program only"
        for job in jobs:
            contender.bare(job)
    else:
        count = sum(len(contender.paint(job)) for job in jobs)
    card.settle()
    after = contender.model_seconds
    models = None if before is None or after is None else after - before
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "models": models,
        "pictures": count,
        "card_peak_bytes": card.peak(),
    }


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
