"""Sampling from latent consistency models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor

    from studio.samplers.noise_table import NoiseTable

DISTILLED_TIMESTEPS = 50
"""Timesteps that latent consistency distillation trains, evenly among all."""
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def lcm(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Multistep consistency sampling: Song et al. 2023, "Consistency Models", Algorithm 1. Predict x0, add noise of the next
    level, repeat; the last prediction is the result. One model call per step.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        x = denoised
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_next
        yield Step(i, sigma, sigma_next, x, denoised)


class ConsistencyFunction:
    """A denoiser as latent consistency models were distilled: Luo et al. 2023, "Latent Consistency Models", eq. 9.

    The model is asked only at its own 50 timesteps: at the one nearest to the wanted level, with the input scaled to it. The
    prediction is blended with the input so that it becomes the input itself at t = 0 (the boundary condition):
    c_skip·x + c_out·x0 with τ = 10·t, c_skip = σ_d²/(τ² + σ_d²), c_out = τ/√(τ² + σ_d²), σ_d = 0.5.

    Args:
        denoiser: the model, at any level.
        table: the levels it was distilled at, and the last of them is timestep T − 1.
        stride: timesteps between two entries of `table`; entry k is timestep (k + 1)·stride − 1.
    """

    def __init__(self, denoiser: Denoiser, table: NoiseTable, stride: int) -> None:
        self._denoiser = denoiser
        self._table = table
        self._stride = stride

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x0 for `x` [B, C, h, w] of noise level `sigma`."""
        entry = self._table.nearest_timestep(sigma)
        sigma_t = self._table.sigma(entry)
        # The model sees x scaled to unit variance, as if that were a latent of level σ_t.
        x_t = x * math.sqrt((sigma_t**2 + 1) / (sigma**2 + 1))
        eps = (x_t - self._denoiser(x_t, sigma_t)) / sigma_t
        tau = TIMESTEP_SCALING * ((entry + 1) * self._stride - 1)
        c_skip = SIGMA_DATA**2 / (tau**2 + SIGMA_DATA**2)
        c_out = tau / math.sqrt(tau**2 + SIGMA_DATA**2)
        return x * c_skip + (x - eps * sigma) * c_out
