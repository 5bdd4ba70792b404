"""Noise schedules: how many steps become a falling list of noise levels σ.

Each function takes a `ScheduleInput` and gives a float32 tensor on the CPU. They compute in float32 in the order of operations
of the tools they must agree with, because a Brownian path is rough: a σ that differs in its last digit changes the noise.
`sigma_schedule` is the way in; it applies the request's overrides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.errors import InvalidRequest
from studio.samplers.table import ScheduleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from studio.samplers.noise_table import NoiseTable
    from studio.schema.parts import SamplerOptions

OLD_KARRAS_RANGE = (0.1, 10.0)
"""σ range of A1111's option for pictures made before it used the model's own range."""


@dataclass(frozen=True)
class ScheduleInput:
    """What a schedule is computed from.

    Attributes:
        n: how many levels above 0.
        sigma_min: the smallest of them, > 0.
        sigma_max: the largest.
        rho: curvature, for the schedules that have one.
        table: the model's training levels.
        alpha: first parameter of `beta`, > 0.
        beta: second parameter of `beta`, > 0.
    """

    n: int
    sigma_min: float
    sigma_max: float
    rho: float
    table: NoiseTable
    alpha: float
    beta: float


def sigma_schedule(
    schedule: ScheduleSpec, steps: int, table: NoiseTable, options: SamplerOptions, *, discard_penultimate: bool = False
) -> tuple[float, ...]:
    """The noise levels of `schedule`, falling; float32 values. Normally `steps` + 1 of them, the last being 0.

    KL Optimal ends at sigma_min instead of 0, and DDIM may give more than `steps` + 1.

    Args:
        schedule: which one, resolved.
        steps: ≥ 1.
        table: the model's training levels; its ends are the range where `options` has 0.
        options: sigma_min, sigma_max, rho, old_karras and the two of the Beta schedule are read.
        discard_penultimate: compute one more and drop the value before the last.

    Raises:
        InvalidRequest: steps < 1, sigma_min is not below sigma_max, or the levels of the Beta schedule fall together.
    """
    if steps < 1:
        raise InvalidRequest(f"A schedule needs at least 1 step, not {steps}.", field="steps")
    low, high = OLD_KARRAS_RANGE if options.old_karras else (table.sigma_min, table.sigma_max)
    low, high = options.sigma_min or low, options.sigma_max or high
    if low >= high:
        message = f"The schedule's smallest sigma ({low:g}) must be below its largest ({high:g})."
        raise InvalidRequest(message, field="sampler_options.sigma_min")
    rho = (options.rho or schedule.default_rho) if schedule.default_rho > 0 else 1.0
    n = steps + 1 if discard_penultimate else steps
    given = ScheduleInput(n, low, high, rho, table, options.beta_dist_alpha, options.beta_dist_beta)
    sigmas: list[float] = schedule.load()(given).tolist()
    if discard_penultimate:
        del sigmas[-2]
    return tuple(sigmas)


def uniform(given: ScheduleInput) -> Tensor:
    """Timesteps on an even ramp from the last to the first; the range options do not apply."""
    import torch

    return _ending_in_zero(given.table.sigmas_at(torch.linspace(len(given.table) - 1, 0, given.n)))


def karras(given: ScheduleInput) -> Tensor:
    """An even ramp in σ^(1/ρ): Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", eq. 5."""
    import torch

    ramp = torch.linspace(0, 1, given.n)
    start, end = given.sigma_max ** (1 / given.rho), given.sigma_min ** (1 / given.rho)
    return _ending_in_zero((start + ramp * (end - start)) ** given.rho)


def exponential(given: ScheduleInput) -> Tensor:
    """An even ramp in log σ."""
    import torch

    return _ending_in_zero(torch.linspace(math.log(given.sigma_max), math.log(given.sigma_min), given.n).exp())


def polyexponential(given: ScheduleInput) -> Tensor:
    """log σ along an even ramp raised to ρ; ρ = 1 is `exponential`."""
    import torch

    ramp = torch.linspace(1, 0, given.n) ** given.rho
    start, end = math.log(given.sigma_max), math.log(given.sigma_min)
    return _ending_in_zero((ramp * (start - end) + end).exp())


def sgm_uniform(given: ScheduleInput) -> Tensor:
    """n + 1 even timesteps of which the last is left out, as Stability AI's "generative models" code spaces them."""
    import torch

    start, end = given.table.nearest_timestep(given.sigma_max), given.table.nearest_timestep(given.sigma_min)
    return _ending_in_zero(given.table.sigmas_at(torch.linspace(start, end, given.n + 1)[:-1]))


def normal(given: ScheduleInput) -> Tensor:
    """Even timesteps, both ends included."""
    import torch

    start, end = given.table.nearest_timestep(given.sigma_max), given.table.nearest_timestep(given.sigma_min)
    return _ending_in_zero(given.table.sigmas_at(torch.linspace(start, end, given.n)))


def kl_optimal(given: ScheduleInput) -> Tensor:
    """An even ramp in arctan σ, n + 1 values: Sabour et al. 2024, "Align Your Steps", appendix on the KL-optimal schedule.

    The last value is sigma_min, not 0.
    """
    import torch

    start, end = math.atan(given.sigma_max), math.atan(given.sigma_min)
    w = torch.arange(given.n + 1) / given.n
    return (w * end + (1 - w) * start).tan()


def simple(given: ScheduleInput) -> Tensor:
    """Every (T/n)-th training level, from the largest down."""
    stride = len(given.table) / given.n
    return _ending_in_zero(given.table.sigmas[[-(1 + int(i * stride)) for i in range(given.n)]])


def ddim(given: ScheduleInput) -> Tensor:
    """Every (T div n)-th training level, counted up from the second; gives more than n levels where T mod n is large."""
    return _ending_in_zero(given.table.sigmas[1 :: max(len(given.table) // given.n, 1)].flip(0))


def beta(given: ScheduleInput) -> Tensor:
    """Quantiles of the Beta(α, β) distribution laid on σ: Lee et al. 2024, "Beta Sampling is All You Need".

    The paper lays them on the timestep; A1111 and Forge lay them on σ, and so does this. Raises `InvalidRequest` where α or β
    crowd the levels so much that two of them are the same float32: a sampler would divide by their distance.
    """
    import torch
    from scipy.special import betaincinv

    q = 1 - torch.linspace(0, 1, given.n, dtype=torch.float64)
    quantiles = torch.from_numpy(betaincinv(given.alpha, given.beta, q.numpy()))
    sigmas = (given.sigma_min + quantiles * (given.sigma_max - given.sigma_min)).float()
    if (sigmas.diff() >= 0).any():
        message = f"{given.n} steps fall together in a Beta schedule with alpha {given.alpha:g} and beta {given.beta:g}"
        raise InvalidRequest(f"{message}: use larger values or fewer steps.", field="sampler_options.beta_dist_alpha")
    return _ending_in_zero(sigmas)


def turbo(given: ScheduleInput) -> Tensor:
    """T/n, 2·T/n … T, minus one, rounded to whole timesteps: how SDXL Turbo was distilled. Forge only."""
    import torch

    count = len(given.table)
    t = (torch.arange(given.n, 0, -1) * (count / given.n) - 1).round().clamp(0, count - 1)
    return _ending_in_zero(given.table.sigmas_at(t))


def align_your_steps(given: ScheduleInput) -> Tensor:
    """The ten-step schedule found by Sabour et al. 2024, "Align Your Steps", resampled in log σ."""
    return _resampled(_AYS_SDXL if given.table.sdxl else _AYS_SD15, given.n)


def align_your_steps_gits(given: ScheduleInput) -> Tensor:
    """Geometry-inspired levels: Chen et al. 2024, "On the Trajectory Regularity of ODE-based Diffusion Sampling". Forge only."""
    return _resampled(_GITS_SDXL if given.table.sdxl else _GITS_SD15, given.n)


def align_your_steps_32(given: ScheduleInput) -> Tensor:
    """The Align Your Steps table drawn down to σ = 0.015 and spread over 32 points, then resampled. Forge only."""
    lower = (*(_AYS_SDXL if given.table.sdxl else _AYS_SD15)[:-1], 0.015)
    return _resampled(_log_interpolated(lower, 32), given.n)


def _resampled(levels: Sequence[float], n: int) -> Tensor:
    """`levels` spread over `n` places, then 0. Their own number of places leaves them as they are."""
    import torch

    chosen = levels if n == len(levels) else _log_interpolated(levels, n)
    return _ending_in_zero(torch.tensor(chosen, dtype=torch.float64).float())


def _log_interpolated(levels: Sequence[float], n: int) -> list[float]:
    """Falling `levels` at `n` even places by linear interpolation of log σ; n = 1 gives the smallest."""
    logs = [math.log(level) for level in reversed(levels)]
    rising = []
    for i in range(n):
        place = i * (len(logs) - 1) / max(n - 1, 1)
        low = min(int(place), len(logs) - 2)
        rising.append(math.exp(logs[low] + (place - low) * (logs[low + 1] - logs[low])))
    return rising[::-1]


def _ending_in_zero(sigmas: Tensor) -> Tensor:
    import torch

    return torch.cat([sigmas, sigmas.new_zeros(1)])


# The tables of the papers, largest level first.
_AYS_SD15 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_AYS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
_GITS_SD15 = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)
_GITS_SDXL = (14.615, 4.734, 2.567, 1.529, 0.987, 0.652, 0.418, 0.268, 0.179, 0.127, 0.029)
