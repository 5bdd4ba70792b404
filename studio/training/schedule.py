"""Learning rates over a run, as shares of the peak rate."""

from __future__ import annotations

import math


def warm_up_then_cosine(step: int, steps: int, warmup: int) -> float:
    """Linear rise over the first ``warmup`` steps, then half a cosine that reaches zero at ``steps``; 0 to 1."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
