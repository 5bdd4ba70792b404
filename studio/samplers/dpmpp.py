"""DPM-Solver++ without Brownian noise: 2M and 2S ancestral.

Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models". With λ = −log σ and
h = λ' − λ, the exact solution over a step for constant D is x' = (σ'/σ)·x − (e^(−h) − 1)·D (eq. 8 in sigma space, where α = 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import ancestral_levels, log_snr
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """DPM-Solver++(2M), Algorithm 2 of the paper: D is extrapolated to the middle of the step from the last two predictions.
    One model call per step. The first step and the step to 0 are of first order.
    """
    denoised_last: Tensor | None = None
    h_last = 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        h = log_snr(sigma_next) - log_snr(sigma)
        target = denoised
        if denoised_last is not None and sigma_next > 0:
            r = h_last / h
            target = denoised * (1 + 1 / (2 * r)) - denoised_last * (1 / (2 * r))
        x = first_order(x, target, sigma, sigma_next)
        denoised_last, h_last = denoised, h
        yield Step(i, sigma, sigma_next, x, denoised)


def dpmpp_2s_ancestral(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DPM-Solver++(2S), Algorithm 1 of the paper with r = 1/2, down to σ_down, then fresh noise of size σ_up. Two model calls,
    one in the step to 0.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        sigma_down, sigma_up = ancestral_levels(sigma, sigma_next, knobs.eta)
        target = denoised
        if sigma_down > 0:
            sigma_mid = math.sqrt(sigma * sigma_down)
            target = denoiser(first_order(x, denoised, sigma, sigma_mid), sigma_mid)
        x = first_order(x, target, sigma, sigma_down)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (knobs.s_noise * sigma_up)
        yield Step(i, sigma, sigma_next, x, denoised)


def first_order(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x' = (σ'/σ)·x + (1 − σ'/σ)·D: exact for constant D. This is DDIM in sigma space."""
    return x * (sigma_next / sigma) + denoised * (1 - sigma_next / sigma)
