"""Samplers on integer timesteps from the CompVis code: DDIM, DDIM CFG++ and PLMS.

They were written for unit-variance latents X = x/√(1 + σ²) and noise predictions ε = (x − D(x; σ))/σ. Divided by √ᾱ their
formulas become ordinary steps in sigma space, which is how they are written here. They end at timestep 1, at a small σ > 0,
and their result is X there: the last `Step.x` is scaled back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import ancestral_levels
from studio.samplers.types import Denoiser, GuidedDenoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor


def ddim(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 12: x' = x0 + √(σ'² − σ_up²)·ε + σ_up·n. One model call per
    step; with η = 0 this is Euler's method.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        x = _ddim_step(denoised, (x - denoised) / sigma, sigma, sigma_next, noise, knobs)
        x = _scaled_if_last(x, i, sigmas)
        yield Step(i, sigma, sigma_next, x, denoised)


def ddim_cfgpp(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DDIM with Chung et al. 2024, "CFG++: Manifold-constrained Classifier Free Guidance", Algorithm 2: x0 is guided, the
    direction ε back to the next level is the unconditional one. Meant for a guidance scale between 0 and 1.

    Raises:
        TypeError: `denoiser` is no `GuidedDenoiser`.
    """
    if not isinstance(denoiser, GuidedDenoiser):
        raise TypeError("DDIM CFG++ needs a denoiser with guided_and_uncond()")
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised, uncond = denoiser.guided_and_uncond(x, sigma)
        x = _ddim_step(denoised, (x - uncond) / sigma, sigma, sigma_next, noise, knobs)
        x = _scaled_if_last(x, i, sigmas)
        yield Step(i, sigma, sigma_next, x, denoised)


def plms(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds": the transfer part of DDIM with the ε of an
    Adams-Bashforth formula (eq. 12), and an improved Euler step at the start (eq. 13), which alone takes two model calls.
    """
    history: deque[Tensor] = deque(maxlen=len(_ADAMS_BASHFORTH) - 1)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        eps = (x - denoised) / sigma
        if history:
            weights = _ADAMS_BASHFORTH[len(history)]
            mixed = eps * weights[0]
            for weight, old in zip(weights[1:], history, strict=True):
                mixed = mixed + old * weight
        else:
            x_euler = x + eps * (sigma_next - sigma)
            mixed = (eps + (x_euler - denoiser(x_euler, sigma_next)) / sigma_next) * 0.5
        x = _scaled_if_last(x + mixed * (sigma_next - sigma), i, sigmas)
        history.appendleft(eps)
        yield Step(i, sigma, sigma_next, x, denoised)


_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the newest ε and of those before it, by how many there are before it."""


def _ddim_step(
    denoised: Tensor, eps: Tensor, sigma: float, sigma_next: float, noise: StepNoise, knobs: Knobs
) -> Tensor:
    sigma_down, sigma_up = ancestral_levels(sigma, sigma_next, knobs.eta)
    x = denoised + eps * sigma_down
    return x if knobs.eta == 0 else x + noise(sigma, sigma_next) * sigma_up


def _scaled_if_last(x: Tensor, i: int, sigmas: Sequence[float]) -> Tensor:
    """x, or X = x/√(1 + σ²) after the last step."""
    return x / math.sqrt(1 + sigmas[-1] ** 2) if i == len(sigmas) - 2 else x
