"""Do guidance, negative prompts, weights, prompt editing and other sizes do what they are for? Measured on pictures that differ in nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.scenes.colour import colour_share, object_colour, redness
from bench.scenes.figures import judged, share_figure, shares
from bench.scenes.painter import Order, Painter
from bench.scenes.prompts import Prompt
from studio.training.data.scenes.vocabulary import OBJECTS
from studio.training.methods.judge.judge import Judge
from studio.training.methods.judge.verdict import Share

GUIDANCE = (1.0, 2.0, 7.0)
"""CFG scales beside the one that all figures are measured at; 1 is no guidance."""
WEIGHTS = (0.6, 1.0, 1.4)
SWITCHES = (0.3, 0.5, 0.7)
"""When, as a share of the steps, red gives way to green: about the middle is where the model decides on colours."""
ANOTHER, OTHERWISE = "purple", "green"
"""Colours that a negative prompt names for comparison; the second where the first is the object's own."""
SIZES = ((96, 96), (192, 192), (160, 96))
"""Width and height in pixels beside the native 128x128."""


def guidance_effect(painter: Painter, judge: Judge, prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """By CFG scale, how often object and colour are right."""
    return {
        f"{scale:g}": _right(replace(painter, cfg=scale), judge, prompts, f"CFG {scale:g}", ("object", "colour"))
        for scale in GUIDANCE
    }


def size_effect(painter: Painter, judge: Judge, prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """By size, how often object and background are right; the judge sees the picture squeezed into its square."""
    return {
        f"{width}x{height}": _right(
            replace(painter, size=(width, height)), judge, prompts, f"{width}x{height}", ("object", "background")
        )
        for width, height in SIZES
    }


def negative_effect(painter: Painter, kinds: int) -> dict[str, Any]:
    """Objects asked for without a colour, then with the colour they came out in as negative prompt, and with another colour as such.

    How much of the picture has the first colour each time, and how often its own name lowers it further than the other's. Any
    negative prompt changes a picture; the other colour shows by how much.
    """
    orders: list[Order] = [(f"a {name} on a gray background", seed) for seed, name in enumerate(_some_objects(kinds))]
    plain = painter.all(orders, "no negative prompt")
    found = {order: object_colour(picture) for order, picture in zip(orders, plain, strict=True)}
    coloured = [order for order in orders if found[order]]
    covered: dict[str, dict[Order, float]] = {"without": {}, "with": {}, "with_another": {}}
    covered["without"] = {
        order: colour_share(picture, found[order]) for order, picture in zip(orders, plain, strict=True) if found[order]
    }
    for colour in sorted(set(found.values()) - {""}):
        mine = [order for order in coloured if found[order] == colour]
        for label, negative in (("with", colour), ("with_another", ANOTHER if colour != ANOTHER else OTHERWISE)):
            pictures = replace(painter, negative=negative).all(mine, f"not {negative}")
            covered[label] |= {
                order: colour_share(picture, colour) for order, picture in zip(mine, pictures, strict=True)
            }
    lowered = sum(covered["with"][order] < covered["with_another"][order] for order in coloured)
    return {
        **{f"covered_{label}": _mean(list(values.values())) for label, values in covered.items()},
        "lowered": share_figure(Share(lowered, len(coloured))),
    }


def weight_effect(painter: Painter, kinds: int) -> dict[str, Any]:
    """``a (red:w) cat`` and the like: the mean of a*, which grows with the red in a picture, by weight."""
    return _redness(painter, kinds, {f"{weight:g}": f"(red:{weight:g})" for weight in WEIGHTS})


def editing_effect(painter: Painter, kinds: int) -> dict[str, Any]:
    """``a [red:green:when] cat`` and the like: the mean of a* by ``when``; the later green comes, the more red stays."""
    return _redness(painter, kinds, {f"{when:g}": f"[red:green:{when:g}]" for when in SWITCHES})


def _redness(painter: Painter, kinds: int, wordings: dict[str, str]) -> dict[str, Any]:
    """Mean a* of objects asked for in each wording's colour, and how often the last wording gave more red than the first."""
    chosen = _some_objects(kinds)
    values = {}
    for label, wording in wordings.items():
        orders: list[Order] = [(f"a {wording} {name} on a gray background", seed) for seed, name in enumerate(chosen)]
        values[label] = [redness(picture) for picture in painter.all(orders, wording)]
    first, *_, last = values.values()
    raised = sum(low < high for low, high in zip(first, last, strict=True))
    return {
        "redness": {label: _mean(found) for label, found in values.items()},
        "raised": share_figure(Share(raised, len(chosen))),
    }


def _some_objects(count: int) -> list[str]:
    """Names from all over the table of objects that are pictures, not plain shapes."""
    names = [kind.name for kind in OBJECTS if not kind.is_shape]
    return names[:: max(1, len(names) // count)][:count]


def _right(
    painter: Painter, judge: Judge, prompts: Sequence[Prompt], what: str, questions: Sequence[str]
) -> dict[str, Any]:
    pictures = painter.all([prompt.order for prompt in prompts], what)
    return shares(judged(judge, prompts, pictures), questions)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
