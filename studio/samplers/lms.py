"""Linear multistep method (Adams-Bashforth with uneven steps)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor

ORDER = 4


def lms(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Integrates the polynomial through the last four slopes d = (x − D(x; σ))/σ from σ to σ': Adams-Bashforth, Hairer, Nørsett
    and Wanner, "Solving Ordinary Differential Equations I", section III.5. One model call per step.
    """
    slopes: deque[Tensor] = deque(maxlen=ORDER)
    for i in range(len(sigmas) - 1):
        denoised = denoiser(x, sigmas[i])
        slopes.appendleft((x - denoised) / sigmas[i])
        nodes = sigmas[i + 1 - len(slopes) : i + 1][::-1]
        for k, d in enumerate(slopes):
            x = x + d * _integral_of_basis(nodes, k, sigmas[i], sigmas[i + 1])
        yield Step(i, sigmas[i], sigmas[i + 1], x, denoised)


def _integral_of_basis(nodes: Sequence[float], k: int, a: float, b: float) -> float:
    """∫ from a to b of the k-th Lagrange basis polynomial. Simpson's rule is exact for it: its degree is at most 3."""

    def basis(s: float) -> float:
        return math.prod((s - node) / (nodes[k] - node) for j, node in enumerate(nodes) if j != k)

    return (b - a) / 6 * (basis(a) + 4 * basis((a + b) / 2) + basis(b))
