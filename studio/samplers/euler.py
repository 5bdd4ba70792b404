"""Euler's method, plain and ancestral."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import ancestral_levels, churned
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor


def euler(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Algorithm 2 of Karras et al. 2022 ("Elucidating the Design Space of Diffusion-Based Generative Models") without its
    second-order correction: dx/dσ = (x − D(x; σ))/σ, one model call per step.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, noise, knobs)
        denoised = denoiser(x, sigma_hat)
        d = (x - denoised) / sigma_hat
        x = x + d * (sigma_next - sigma_hat)
        yield Step(i, sigma, sigma_next, x, denoised)


def euler_ancestral(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """An Euler step down to σ_down, then fresh noise of size σ_up: ancestral sampling (Ho et al. 2020, Algorithm 2) in sigma
    space, with the η of Song et al. 2021, eq. 16.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        sigma_down, sigma_up = ancestral_levels(sigma, sigma_next, knobs.eta)
        d = (x - denoised) / sigma
        x = x + d * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (knobs.s_noise * sigma_up)
        yield Step(i, sigma, sigma_next, x, denoised)
