"""Learning rates over a run, as shares of the peak rate: pure functions of the step, so that a resumed run needs no state of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.schema.training_tuning import RatePart


def warm_up_then_cosine(step: int, steps: int, warmup: int) -> float:
    """Linear rise over the first ``warmup`` steps, then half a cosine that reaches zero at ``steps``; 0 to 1."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def rate_share(part: RatePart, step: int, steps: int) -> float:
    """The share of the peak rate at ``step`` (0 ... steps - 1): a linear warm-up, then the course that ``part`` names; 0 to 1."""
    warmup = round(part.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    if part.name == "constant":
        return 1.0
    if part.name == "linear":
        left = 1 - done
    else:
        turn = (done * part.cycles) % 1.0 if part.name == "cosine-restarts" else done
        left = 0.5 * (1 + math.cos(math.pi * turn))
    return part.final + (1 - part.final) * left
