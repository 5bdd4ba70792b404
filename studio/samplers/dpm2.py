"""DPM-Solver-2 in the midpoint form of Karras et al., plain and ancestral."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import ancestral_levels, churned
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor


def dpm2(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """The midpoint method with the midpoint taken in log σ: Lu et al. 2022, "DPM-Solver", Algorithm 1, with the churn of Karras
    et al. 2022, Algorithm 2. Two model calls, one in the step to 0.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, noise, knobs)
        x, denoised = _midpoint_step(denoiser, x, sigma_hat, sigma_next)
        yield Step(i, sigma, sigma_next, x, denoised)


def dpm2_ancestral(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """`dpm2` steps down to σ_down, then fresh noise of size σ_up (Song et al. 2021, eq. 16)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        sigma_down, sigma_up = ancestral_levels(sigma, sigma_next, knobs.eta)
        x, denoised = _midpoint_step(denoiser, x, sigma, sigma_down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (knobs.s_noise * sigma_up)
        yield Step(i, sigma, sigma_next, x, denoised)


def _midpoint_step(denoiser: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """The latents at `sigma_next`, and D(x; σ)."""
    denoised = denoiser(x, sigma)
    d = (x - denoised) / sigma
    if sigma_next == 0:
        return x + d * (sigma_next - sigma), denoised
    sigma_mid = math.sqrt(sigma * sigma_next)
    x_mid = x + d * (sigma_mid - sigma)
    d_mid = (x_mid - denoiser(x_mid, sigma_mid)) / sigma_mid
    return x + d_mid * (sigma_next - sigma), denoised
