"""DPM-Solver with noise prediction: "fast" (fixed steps) and "adaptive" (step-size control).

Lu et al. 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps". In sigma space the
paper's α is 1 and λ = −log σ; ε(x, λ) = (x − D(x; σ))/σ. Of the given levels both read only the first and the last, which must be
above 0, and choose those between by themselves, evenly in λ or by the error.
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

RTOL, ATOL = 0.05, 0.0078
"""Relative and absolute tolerance of a step's local error; the paper's values, ATOL being 1/128 for 8-bit pixels."""
FIRST_STEP = 0.05
"""First step in λ."""
ACCEPT_SAFETY = 0.81
"""A step is accepted when the controller's factor is at least this."""


def fast_orders(model_calls: int) -> list[int]:
    """Orders of the steps of DPM-Solver-fast that spend exactly `model_calls` model calls: section 3.4 of the paper."""
    full, rest = divmod(model_calls, 3)
    return [3] * (full - 1) + [2, 1] if rest == 0 else [3] * full + [rest]


def dpm_fast(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """DPM-Solver-fast: as many third-order steps as the model calls allow, evenly in λ. The number of calls is one less than
    that of levels given; a step of order k takes k of them. One draw per step when η > 0.
    """
    orders = fast_orders(len(sigmas) - 1)
    start, end = log_snr(sigmas[0]), log_snr(sigmas[-1])
    lambdas = [*(start + i / len(orders) * (end - start) for i in range(len(orders))), end]
    for i, (order, (s, t)) in enumerate(zip(orders, pairwise(lambdas), strict=True)):
        t_down, sigma_up = _ancestral(s, t, end, knobs.eta)
        solver = _Stages(denoiser, x, s)
        x = (solver.first, solver.second, solver.third)[order - 1](t_down)
        x = _with_noise(x, s, t, sigma_up, noise, knobs)
        yield Step(i, math.exp(-s), math.exp(-t), x, solver.denoised)


def dpm_adaptive(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DPM-Solver-23: appendix C of the paper, with the error compared over the whole batch.

    Each step is tried with orders 2 and 3, which share their model calls; the difference is the error, and an integral controller
    sets the next step from it. The number of steps follows from the error, and the pictures of a batch influence each other
    through it: a batch does not equal single runs. One draw per accepted step when η > 0.
    """
    s, end = log_snr(sigmas[0]), log_snr(sigmas[-1])
    h = FIRST_STEP
    x_last = x
    i = 0
    while s < end - 1e-5:
        t = min(end, s + h)
        t_down, sigma_up = _ancestral(s, t, end, knobs.eta)
        solver = _Stages(denoiser, x, s)
        x_low, x_high = solver.second(t_down, r_1=1 / 3), solver.third(t_down)
        tolerance = (x_low.abs().maximum(x_last.abs()) * RTOL).clamp(min=ATOL)
        error = float(((x_low - x_high) / tolerance).norm()) / math.sqrt(x.numel())
        # Without noise the error of the lower order falls with h³; with noise, with h^1.5.
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / (1.5 if knobs.eta else 3)) - 1)
        h *= factor
        if factor < ACCEPT_SAFETY:
            continue
        x_last = x_low
        x = _with_noise(x_high, s, t, sigma_up, noise, knobs)
        yield Step(i, math.exp(-s), math.exp(-t), x, solver.denoised)
        s = t
        i += 1


class _Stages:
    """Steps of orders 1 to 3 from one point; model calls that several orders need are made once.

    With r_1 = 1/3 the second order takes its extra call where the third order takes its first one.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor, s: float) -> None:
        self._denoiser = denoiser
        self._x = x
        self._s = s
        self.denoised = denoiser(x, math.exp(-s))
        self._eps = (x - self.denoised) / math.exp(-s)
        self._inner: dict[tuple[float, float], Tensor] = {}

    def first(self, t: float) -> Tensor:
        """DPM-Solver-1 (eq. 3.7), which is DDIM."""
        return self._x - self._eps * (math.exp(-t) * math.expm1(t - self._s))

    def second(self, t: float, r_1: float = 0.5) -> Tensor:
        """DPM-Solver-2 (Algorithm 4 of the appendix)."""
        h = t - self._s
        d_1 = self._eps_at(t, r_1) - self._eps
        return self.first(t) - d_1 * (math.exp(-t) / (2 * r_1) * math.expm1(h))

    def third(self, t: float) -> Tensor:
        """DPM-Solver-3 with r_1 = 1/3 and r_2 = 2/3 (Algorithm 5 of the appendix)."""
        h, r_1, r_2 = t - self._s, 1 / 3, 2 / 3
        d_1 = self._eps_at(t, r_1) - self._eps
        s_2 = self._s + r_2 * h
        u_2 = self.first(s_2) - d_1 * (math.exp(-s_2) * r_2 / r_1 * (math.expm1(r_2 * h) / (r_2 * h) - 1))
        d_2 = self._model_eps(u_2, s_2) - self._eps
        return self.first(t) - d_2 * (math.exp(-t) / r_2 * (math.expm1(h) / h - 1))

    def _eps_at(self, t: float, r: float) -> Tensor:
        """ε after a first-order step over the part `r` of the way to `t`."""
        if (t, r) not in self._inner:
            s_r = self._s + r * (t - self._s)
            self._inner[t, r] = self._model_eps(self.first(s_r), s_r)
        return self._inner[t, r]

    def _model_eps(self, x: Tensor, s: float) -> Tensor:
        sigma = math.exp(-s)
        return (x - self._denoiser(x, sigma)) / sigma


def _ancestral(s: float, t: float, end: float, eta: float) -> tuple[float, float]:
    """The λ to step down to, not beyond `end`, and the size of the noise that lifts it back to `t`."""
    if eta == 0:
        return t, 0.0
    down, _ = ancestral_levels(math.exp(-s), math.exp(-t), eta)
    t_down = min(end, log_snr(down))
    return t_down, math.sqrt(max(math.exp(-2 * t) - math.exp(-2 * t_down), 0))


def _with_noise(x: Tensor, s: float, t: float, sigma_up: float, noise: StepNoise, knobs: Knobs) -> Tensor:
    if knobs.eta == 0:
        return x
    return x + noise(math.exp(-s), math.exp(-t)) * (knobs.s_noise * sigma_up)
