"""Do guidance, negative prompts and weights do what they are for? Measured on pairs of pictures that differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.scenes.colour import colour_share, redness
from bench.scenes.figures import judged, share_figure, shares
from bench.scenes.painter import Painter
from bench.scenes.prompts import Prompt
from bench.scenes.track import track
from studio.training.data.scenes.vocabulary import OBJECTS
from studio.training.methods.judge.judge import Judge
from studio.training.methods.judge.verdict import Share

GUIDANCE = (1.0, 2.0, 7.0)
"""CFG scales beside the one that all figures are measured at; 1 is no guidance."""
WEIGHTS = (0.6, 1.0, 1.4)


def guidance_effect(painter: Painter, judge: Judge, prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """By CFG scale, how often object and colour are right."""
    found = {}
    for scale in GUIDANCE:
        other = replace(painter, cfg=scale)
        pictures = [other(prompt.text, prompt.index) for prompt in track(prompts, f"CFG {scale:g}")]
        found[f"{scale:g}"] = shares(judged(judge, prompts, pictures), ("object", "colour"))
    return found


def negative_effect(painter: Painter, seeds: int) -> dict[str, Any]:
    """Shapes asked for without a colour, and again with their usual colour in the negative prompt: how much of the picture has it."""
    shapes = [(kind.name, kind.natural, seed) for kind in OBJECTS if kind.is_shape for seed in range(seeds)]
    without, with_it = [], []
    for name, colour, seed in track(shapes, "negative prompt"):
        prompt = f"a {name} on a gray background"
        without.append(colour_share(painter(prompt, seed), colour))
        with_it.append(colour_share(replace(painter, negative=colour)(prompt, seed), colour))
    lowered = sum(after < before for before, after in zip(without, with_it, strict=True))
    return {
        "covered_without": _mean(without),
        "covered_with": _mean(with_it),
        "lowered": share_figure(Share(lowered, len(shapes))),
    }


def weight_effect(painter: Painter, kinds: int) -> dict[str, Any]:
    """``a (red:w) cat`` and the like: the mean of a*, which grows with the red in a picture, by weight."""
    names = [kind.name for kind in OBJECTS if not kind.is_shape]
    chosen = names[:: max(1, len(names) // kinds)][:kinds]
    values: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    for seed, name in enumerate(track(chosen, "weights")):
        for weight in WEIGHTS:
            values[weight].append(redness(painter(f"a (red:{weight:g}) {name} on a gray background", seed)))
    raised = sum(low < high for low, high in zip(values[WEIGHTS[0]], values[WEIGHTS[-1]], strict=True))
    return {
        "redness": {f"{weight:g}": _mean(found) for weight, found in values.items()},
        "raised": share_figure(Share(raised, len(chosen))),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
