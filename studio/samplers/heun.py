"""Heun's second-order method, plain and with restarts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import churned
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor

RESTART_FROM, RESTART_TO = 0.1, 2.0
"""A restart jumps from the level nearest the first up to the level nearest the second."""


def heun(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Algorithm 2 of Karras et al. 2022: an Euler step, then the trapezoidal rule; two model calls except in the step to 0."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churned(x, sigma, len(sigmas) - 1, noise, knobs)
        x, denoised = _heun_step(denoiser, x, sigma_hat, sigma_next)
        yield Step(i, sigma, sigma_next, x, denoised)


def restart(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """Xu et al. 2023, "Restart Sampling for Improving Generative Processes", Algorithm 1 with Heun's method and A1111's numbers.

    Below 20 steps this is `heun` on the given schedule. From 20 steps on, part of the steps is spent on going back: once the
    level has fallen to about 0.1, noise lifts it to about 2 and a Karras ramp of 9 steps leads down again; from 36 steps on
    twice, with a quarter of the steps each. The rest of the steps then run on a Karras ramp between the ends of the schedule.
    """
    previous = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(_with_restarts(sigmas)):
        if sigma > previous:
            x = x + noise(previous, sigma) * (knobs.s_noise * math.sqrt(sigma**2 - previous**2))
        x, denoised = _heun_step(denoiser, x, sigma, sigma_next)
        previous = sigma_next
        yield Step(i, sigma, sigma_next, x, denoised)


def _heun_step(denoiser: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """The latents at `sigma_next`, and D(x; σ)."""
    denoised = denoiser(x, sigma)
    d = (x - denoised) / sigma
    x_euler = x + d * (sigma_next - sigma)
    if sigma_next == 0:
        return x_euler, denoised
    d_next = (x_euler - denoiser(x_euler, sigma_next)) / sigma_next
    return x + (d + d_next) * (0.5 * (sigma_next - sigma)), denoised


def _with_restarts(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The (from, to) levels of every step."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    length, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    base = [*_karras_ramp(steps - length * times, sigmas[0], min(s for s in sigmas if s > 0)), 0.0]
    low = min(range(len(base)), key=lambda i: abs(base[i] - RESTART_FROM))
    high = min(range(len(base)), key=lambda i: abs(base[i] - RESTART_TO))
    pairs = list(pairwise(base))
    if high >= low:
        return pairs
    detour = list(pairwise(_karras_ramp(length + 1, base[high], base[low])))
    return pairs[:low] + detour * times + pairs[low:]


def _karras_ramp(n: int, start: float, end: float) -> list[float]:
    """n ≥ 2 levels on an even ramp in σ^(1/7), `start` and `end` among them exactly: Karras et al. 2022, eq. 5."""
    first, last = start ** (1 / 7), end ** (1 / 7)
    return [start, *((first + i / (n - 1) * (last - first)) ** 7 for i in range(1, n - 1)), end]
