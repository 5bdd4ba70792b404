"""Arithmetic that several samplers share.

All levels are Python floats, so that no sampler waits for the device; only DPM adaptive must look at its error.
Symbols: D(x; σ) is the denoiser, σ the level a step starts from, σ' the level it ends at, and λ = −log σ the log
signal-to-noise ratio in sigma space ("t" in k-diffusion's DPM-Solver code).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from studio.samplers.types import Knobs, StepNoise


def log_snr(sigma: float) -> float:
    """λ = −log σ; infinite at σ = 0."""
    return -math.log(sigma) if sigma > 0 else math.inf


def ancestral_levels(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Split a step into a deterministic part down to σ_down and fresh noise of size σ_up, with σ_down² + σ_up² = σ'².

    σ_up = η·√(σ'²(σ² − σ'²)/σ²): eq. 16 of Song et al. 2021, "Denoising Diffusion Implicit Models", in sigma space. η = 1 is
    the ancestral (DDPM) variance and η = 0 adds no noise.

    Returns:
        σ_down and σ_up.
    """
    sigma_up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


def churned(x: Tensor, sigma: float, steps: int, noise: StepNoise, knobs: Knobs) -> tuple[Tensor, float]:
    """Raise the noise level before a step: Karras et al. 2022, Algorithm 2, lines 4 to 6.

    γ = min(S_churn/N, √2 − 1) inside [S_tmin, S_tmax], σ̂ = σ(1 + γ), x̂ = x + √(σ̂² − σ²)·S_noise·n. A run with churn takes
    one draw at every step, inside that range or not.

    Args:
        steps: N, the steps of the run.

    Returns:
        x̂ and σ̂; `x` and `sigma` themselves where γ = 0.
    """
    if knobs.s_churn == 0:
        return x, sigma
    fresh = noise(sigma, sigma)
    if not knobs.s_tmin <= sigma <= knobs.s_tmax:
        return x, sigma
    raised = sigma * (1 + min(knobs.s_churn / steps, math.sqrt(2) - 1))
    return x + fresh * (knobs.s_noise * math.sqrt(raised**2 - sigma**2)), raised
