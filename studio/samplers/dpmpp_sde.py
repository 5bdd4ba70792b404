"""DPM-Solver++ for the reverse-time SDE, on a Brownian path.

Lu et al. 2022, "DPM-Solver++", section 5 (SDE-DPM-Solver++), with the noise multiplier η and the solvers of k-diffusion. The
exact solution over a step for constant D, with h = λ' − λ = log(σ/σ'), is

    x' = (σ'/σ)·e^(−ηh)·x + (1 − e^(−(1+η)h))·D + σ'·√(1 − e^(−2ηh))·n

where n is the normalised increment of the path between σ and σ'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.samplers.common import ancestral_levels, log_snr
from studio.samplers.dpmpp import first_order
from studio.samplers.types import Denoiser, Knobs, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_sde(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs) -> Iterator[Step]:
    """DPM++ SDE: `dpmpp_2s_ancestral` with noise in both stages, both from the step's start. Two model calls, one in the step
    to 0.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            path_start, sigma_mid, path_end = _float32_midpoint(sigma, sigma_next)
            down, up = ancestral_levels(sigma, sigma_mid, knobs.eta)
            x_mid = first_order(x, denoised, sigma, down) + noise(path_start, sigma_mid) * (knobs.s_noise * up)
            denoised_mid = denoiser(x_mid, sigma_mid)
            down, up = ancestral_levels(sigma, sigma_next, knobs.eta)
            x = first_order(x, denoised_mid, sigma, down) + noise(path_start, path_end) * (knobs.s_noise * up)
        yield Step(i, sigma, sigma_next, x, denoised)


def dpmpp_2m_sde(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DPM++ 2M SDE with the midpoint rule: SDE-DPM-Solver++(2M), eq. 14 of the paper. One model call per step."""
    return _dpmpp_2m_sde(denoiser, x, sigmas, noise, knobs, heun=False)


def dpmpp_2m_sde_heun(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DPM++ 2M SDE whose second-order term is integrated exactly (φ₂) instead of by the midpoint rule."""
    return _dpmpp_2m_sde(denoiser, x, sigmas, noise, knobs, heun=True)


def _dpmpp_2m_sde(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs, *, heun: bool
) -> Iterator[Step]:
    denoised_last: Tensor | None = None
    h_last = 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log_snr(sigma_next) - log_snr(sigma)
            x = _first_order_sde(x, denoised, sigma, sigma_next, knobs.eta)
            if denoised_last is not None:
                slope = (denoised - denoised_last) / (h_last / h)
                h_eta = h * (1 + knobs.eta)
                x = x + slope * (_phi2(h_eta) if heun else -0.5 * math.expm1(-h_eta))
            x = _with_path_noise(x, sigma, sigma_next, noise, knobs)
            denoised_last, h_last = denoised, h
        yield Step(i, sigma, sigma_next, x, denoised)


def dpmpp_3m_sde(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], noise: StepNoise, knobs: Knobs
) -> Iterator[Step]:
    """DPM++ 3M SDE (k-diffusion): first and second divided differences of the last three predictions, integrated exactly
    (φ₂ and φ₃). One model call per step.
    """
    last: list[Tensor] = []
    h_1 = h_2 = 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            x = denoised
        else:
            h = log_snr(sigma_next) - log_snr(sigma)
            h_eta = h * (1 + knobs.eta)
            x = _first_order_sde(x, denoised, sigma, sigma_next, knobs.eta)
            if len(last) == 2:
                r_0, r_1 = h_1 / h, h_2 / h
                d1_0 = (denoised - last[0]) / r_0
                d1_1 = (last[0] - last[1]) / r_1
                d2 = (d1_0 - d1_1) / (r_0 + r_1)
                x = x + (d1_0 + d2 * r_0) * _phi2(h_eta) - d2 * (_phi2(h_eta) / h_eta - 0.5)
            elif last:
                x = x + (denoised - last[0]) * (_phi2(h_eta) * h / h_1)
            x = _with_path_noise(x, sigma, sigma_next, noise, knobs)
            last = [denoised, *last[:1]]
            h_1, h_2 = h, h_1
        yield Step(i, sigma, sigma_next, x, denoised)


def _first_order_sde(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float, eta: float) -> Tensor:
    """The part of the solution above that has no noise."""
    h = log_snr(sigma_next) - log_snr(sigma)
    return x * (sigma_next / sigma * math.exp(-eta * h)) - denoised * math.expm1(-(1 + eta) * h)


def _with_path_noise(x: Tensor, sigma: float, sigma_next: float, noise: StepNoise, knobs: Knobs) -> Tensor:
    if knobs.eta == 0:
        return x
    h = log_snr(sigma_next) - log_snr(sigma)
    return x + noise(sigma, sigma_next) * (knobs.s_noise * sigma_next * math.sqrt(-math.expm1(-2 * knobs.eta * h)))


def _phi2(h: float) -> float:
    """(e^(−h) − 1)/h + 1."""
    return math.expm1(-h) / h + 1


def _float32_midpoint(sigma: float, sigma_next: float) -> tuple[float, float, float]:
    """σ, the midpoint in log σ, and σ', after a detour through −log σ in float32.

    A Brownian path is rough: asked at a level one float32 step away, it answers with noise that differs by about 1e-2. So the
    path must be asked at exactly the float32 levels that k-diffusion computes, rounding included.
    """
    import torch

    t, t_next = torch.tensor([sigma, sigma_next]).log().neg()
    s = t + (t_next - t) * 0.5
    start, middle, end = (float(level.neg().exp()) for level in (t, s, t_next))
    return start, middle, end
