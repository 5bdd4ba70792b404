"""From names and numbers to a run: which levels are visited, how the latents start, which function walks them.

`plan` knows what is special about each kind of sampler, so that an engine does not have to:

    p = plan("DPM++ 2M", "Karras", 20, table, options)
    x = p.start(noise.start())
    for step in p.run(denoiser, x, noise):
        ...
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.errors import InvalidRequest
from studio.samplers.dpm_solver import fast_orders
from studio.samplers.lcm import DISTILLED_TIMESTEPS, ConsistencyFunction
from studio.samplers.schedules import sigma_schedule
from studio.samplers.table import SAMPLERS, SamplerSpec, ScheduleSpec, find_sampler, resolve_schedule
from studio.samplers.types import Denoiser, Knobs, NoiseSource, Step, StepNoise

if TYPE_CHECKING:
    from torch import Tensor

    from studio.samplers.noise_table import NoiseTable
    from studio.schema.parts import SamplerOptions

NEAR = 1e-3
"""Levels nearer than this share below the one a branch begins at are left out: multistep samplers divide by the distance."""
HIGHEST_STRENGTH = 0.999
"""A strength above this counts as this, so that the picture given never vanishes entirely."""


@dataclass(frozen=True)
class SamplingPlan:
    """A run ready to start. Made by `plan`.

    Attributes:
        sampler: the algorithm.
        schedule: the schedule in use, never Automatic; samplers with levels of their own ignore it.
        sigmas: the levels visited, falling.
        start_scale: what the start noise is multiplied by.
        start_sigma: noise level that a given picture is lifted to (img2img).
        sigma_range: smallest (above 0) and largest level of the whole schedule, also where only a part of it is run.
        knobs: the options the algorithm reads.
        table: the model's training levels.
        steps: how many steps `run` yields. DPM adaptive takes as many as the error asks for; this is then only the request's.
        model_calls: how often `run` calls the denoiser, with the same caveat. Restart may need up to two fewer.
    """

    sampler: SamplerSpec
    schedule: ScheduleSpec
    sigmas: tuple[float, ...]
    start_scale: float
    start_sigma: float
    sigma_range: tuple[float, float]
    knobs: Knobs
    table: NoiseTable
    steps: int
    model_calls: int

    @property
    def guidance_factor(self) -> float:
        """The CFG scale is to be multiplied by this: 1/12.5 for DDIM CFG++, else 1."""
        return self.sampler.guidance_factor

    @property
    def needs_uncond(self) -> bool:
        """Whether `run` needs a `GuidedDenoiser`."""
        return self.sampler.needs_uncond

    def start(self, noise: Tensor, init: Tensor | None = None, extra: float = 0.0) -> Tensor:
        """The latents to begin with, in sigma space.

        Args:
            noise: start noise of unit variance, [B, C, h, w].
            init: for img2img the clean latents to start from, same shape; the plan must have a strength then.
            extra: with `init`, so much more of the noise than belongs to the level, in sigma space (A1111's Extra noise).
        """
        if init is None:
            return noise * self.start_scale
        if not self.sampler.timesteps:
            return init + noise * (self.start_sigma + extra)
        # √ᾱ·init + √(1−ᾱ)·n of unit variance at the timestep above the first one visited, taken as a latent of that first one.
        unit = (init + noise * (self.start_sigma + extra)) / math.sqrt(1 + self.start_sigma**2)
        return unit * math.sqrt(1 + self.sigmas[0] ** 2)

    def below(self, sigma: float) -> tuple[SamplingPlan, int, int]:
        """The rest of this plan for a branch that begins at the level `sigma`: that level, then those of the plan below it.

        What counts on is kept as it would be there: the churn of a step, the Brownian path. Multistep samplers begin without
        a history.

        Returns:
            The plan, how many steps of this one it leaves out, and how many model calls these would have taken.

        Raises:
            InvalidRequest: nothing is left to run, or a sampler that cannot branch (`SamplerSpec.can_branch`).
        """
        refuse_branch(self.sampler)
        levels = [level for level in self.sigmas if level < sigma * (1 - NEAR)]
        if not levels:
            raise InvalidRequest(
                f"{self.sampler.name} with {self.steps} steps has none left below sigma {sigma:.4g}: branch from an earlier step.",
                field="branch.step",
            )
        sigmas = (sigma, *levels)
        count, calls = _counts(self.sampler, sigmas)
        skipped = max(self.steps - count, 0)
        low, high = self.sigma_range
        rest = replace(
            self,
            sigmas=sigmas,
            start_sigma=sigma,
            sigma_range=(low, max(high, sigma)),
            knobs=replace(
                self.knobs, s_churn=self.knobs.s_churn * count / self.steps
            ),  # samplers divide it by their steps
            steps=count,
            model_calls=calls,
        )
        per_step = 2 if self.sampler.second_order else 1
        return rest, skipped, skipped * per_step + (self.sampler.extra_first_calls if skipped else 0)

    def run(self, denoiser: Denoiser, x: Tensor, noise: NoiseSource) -> Generator[Step, None, None]:
        """Walk the levels, yielding after every step; close the generator to stop.

        Args:
            denoiser: predicts x0, guidance included (scale times `guidance_factor`).
            x: what `start` gave.
            noise: source of all noise after the start noise.

        Raises:
            TypeError: `needs_uncond`, and the denoiser is no `GuidedDenoiser`.
        """
        if self.sampler.consistency:
            levels, stride = _distilled(self.table)
            denoiser = ConsistencyFunction(denoiser, levels, stride)

        def draw(sigma: float, sigma_next: float) -> Tensor:
            return noise.draw()

        step_noise: StepNoise = noise.brownian(*self.sigma_range) if self.sampler.brownian else draw
        yield from self.sampler.load()(denoiser, x, self.sigmas, step_noise, self.knobs)


def plan(
    sampler: str | SamplerSpec,
    schedule: str | ScheduleSpec,
    steps: int,
    table: NoiseTable,
    options: SamplerOptions,
    *,
    strength: float | None = None,
    exact_steps: bool = False,
) -> SamplingPlan:
    """Work out a run.

    Args:
        sampler: row or name.
        schedule: row, name or label; Automatic stands for the sampler's default.
        steps: sampling steps as the user counts them, ≥ 1.
        table: the model's training levels.
        options: the request's sampler options.
        strength: None starts from noise. 0…1 starts from a picture (img2img), with that part of the steps.
        exact_steps: with a strength, lengthen the schedule so that exactly `steps` steps are run, as the hires pass does.

    Raises:
        UnknownName: no such sampler or schedule.
        InvalidRequest: fewer than 1 step or more than the model has timesteps, an empty sigma range, or a strength that
            leaves no step to run.
    """
    sampler = find_sampler(sampler) if isinstance(sampler, str) else sampler
    schedule = resolve_schedule(sampler, schedule)
    if steps < 1:
        raise InvalidRequest(f"Sampling needs at least 1 step, not {steps}.", field="steps")
    total, t_enc = (steps, None) if strength is None else img2img_steps(steps, strength, exact_steps=exact_steps)
    if total < 1:
        raise _nothing_to_run(strength)
    if sampler.timesteps:
        whole, start_sigma = _timestep_levels(sampler, total, t_enc, table, options)
        sigmas = whole
        start_scale = math.sqrt(1 + sigmas[0] ** 2)
    else:
        whole, sigmas = _sigmas(sampler, schedule, total, t_enc, table, options)
        if len(sigmas) < 2:  # not all schedules are as long as asked for
            raise _nothing_to_run(strength)
        if sampler.own_range:
            sigmas = _own_levels(sampler, sigmas, table if t_enc is None else None)
        start_sigma = sigmas[0]
        start_scale = math.sqrt(1 + start_sigma**2) if options.sgm_noise_multiplier else start_sigma
    count, calls = _counts(sampler, sigmas)
    positive = [sigma for sigma in whole if sigma > 0]
    return SamplingPlan(
        sampler=sampler,
        schedule=schedule,
        sigmas=sigmas,
        start_scale=start_scale,
        start_sigma=start_sigma,
        sigma_range=(min(positive), max(positive)),
        knobs=_knobs(sampler, options),
        table=table,
        steps=count,
        model_calls=calls,
    )


def refuse_branch(sampler: SamplerSpec) -> None:
    """Raises `InvalidRequest` for a sampler that cannot go on from a step of another run."""
    if not sampler.can_branch:
        able = ", ".join(spec.name for spec in SAMPLERS if spec.can_branch)
        raise InvalidRequest(
            f"{sampler.name} chooses its own noise levels, so it cannot go on from a step of another picture. These can: {able}.",
            field="sampler",
        )


MOST_STEPS = 1000
"""Steps that a schedule may have of which only the end is run: the noise levels that checkpoints are trained with."""
ENDLESS = 10**9
"""Steps of a schedule that no strength asks for more of; the quotient of a tiny one is infinite."""


def img2img_steps(steps: int, strength: float, *, exact_steps: bool = False) -> tuple[int, int]:
    """How many steps the schedule has and t_enc: with sigmas, the last t_enc + 1 of the steps are run.

    Normally `steps` and that part of it which the strength gives, so fewer are run than asked for. With `exact_steps` the
    schedule is as long as it must be for `steps` of them to be run; a strength of 0 gives an empty one.
    """
    capped = min(strength, HIGHEST_STRENGTH)
    if exact_steps:
        return (int(min(steps / capped, ENDLESS)) if capped > 0 else 0), steps - 1
    return steps, int(capped * steps)


def refuse_long_schedule(steps: int, strength: float, field: str, instead: str) -> None:
    """Raises `InvalidRequest` for a strength so small that the schedule of which exactly `steps` steps are run has no levels left to tell apart.

    `field` names the strength in a request; `instead` is a sentence about what could be done.
    """
    total = img2img_steps(steps, strength, exact_steps=True)[0] or ENDLESS
    if total > MOST_STEPS:
        raise InvalidRequest(
            f"{field} = {strength:g} is too small for {steps} steps: they would be the last of {total:,}, and {MOST_STEPS:,} "
            f"are possible. {instead}",
            field=field,
        )


def _nothing_to_run(strength: float | None) -> InvalidRequest:
    return InvalidRequest(
        f"A denoising strength of {strength or 0:g} leaves no step to run.", field="denoising_strength"
    )


def ddim_timesteps(steps: int, count: int = 1000) -> tuple[int, ...]:
    """The timesteps of the samplers of the CompVis code, rising: the multiples of `count` div `steps`, plus 1.

    Often one more than `steps`. Song et al. 2021, appendix D.2 (linear), shifted by one so that the last is not the clean image.

    Raises:
        InvalidRequest: more steps than the model has timesteps.
    """
    if not 1 <= steps <= count:
        raise InvalidRequest(f"This sampler takes 1 to {count} steps, not {steps}.", field="steps")
    return tuple(min(t + 1, count - 1) for t in range(0, count, count // steps))


def _sigmas(
    sampler: SamplerSpec,
    schedule: ScheduleSpec,
    total: int,
    t_enc: int | None,
    table: NoiseTable,
    options: SamplerOptions,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The levels of a schedule of `total` steps, and those that are visited of them: the last where `t_enc` says how many."""
    levels = _distilled(table)[0] if sampler.consistency else table
    discard = sampler.discard_penultimate or options.discard_penultimate
    # DDIM's has fewer levels than asked for where that is about as many as the table has.
    whole = sigma_schedule(schedule, total, levels, options, discard_penultimate=discard)
    return whole, whole if t_enc is None else whole[max(total - t_enc - 1, 0) :]


def _timestep_levels(
    sampler: SamplerSpec, steps: int, t_enc: int | None, table: NoiseTable, options: SamplerOptions
) -> tuple[tuple[float, ...], float]:
    """The levels a sampler on timesteps visits, and the one a given picture is lifted to."""
    timesteps = ddim_timesteps(steps + 1 if options.discard_penultimate else steps, len(table))
    used = timesteps if t_enc is None else timesteps[:t_enc]
    if len(used) < (1 if sampler.continuous_time else 2):
        reason = f"{steps} steps" if t_enc is None else f"this denoising strength with {steps} steps"
        raise InvalidRequest(f"{sampler.name} has no step to run with {reason}: use more.", field="steps")
    start_sigma = table.sigma(timesteps[-1] if t_enc is None else timesteps[min(t_enc, len(timesteps) - 1)])
    if sampler.continuous_time:
        last = len(table) - 1 if t_enc is None else used[-1]
        return _unipc_levels(last, len(used), table, options), start_sigma
    return tuple(table.sigma(t) for t in reversed(used)), start_sigma


def _unipc_levels(last: int, steps: int, table: NoiseTable, options: SamplerOptions) -> tuple[float, ...]:
    """The levels of UniPC: `steps` + 1 points from timestep `last` down to 0, even in what the skip type says.

    "Time" there is (t + 1)/T, so that the first trained timestep is at 1/T and the last at 1.
    """
    ramp = [1 - i / steps for i in range(steps + 1)]
    if options.uni_pc_skip_type == "logSNR":
        top, bottom = math.log(table.sigma(last)), math.log(table.sigma(0))
        return tuple(math.exp(bottom + w * (top - bottom)) for w in ramp)
    power = 2 if options.uni_pc_skip_type == "time_quadratic" else 1
    count = len(table)
    top, bottom = ((last + 1) / count) ** (1 / power), (1 / count) ** (1 / power)
    times = [(bottom + w * (top - bottom)) ** power for w in ramp]
    return tuple(table.sigma(time * count - 1) for time in times)


def _own_levels(sampler: SamplerSpec, sigmas: tuple[float, ...], table: NoiseTable | None) -> tuple[float, ...]:
    """As many levels as `sigmas`, even in log σ, over the whole of `table` or else from the first to the last one above 0."""
    if table:
        start, end = table.sigma_max, table.sigma_min
    else:
        start, end = sigmas[0], min(sigma for sigma in sigmas if sigma > 0)
    if start <= end:
        raise InvalidRequest(
            f"{sampler.name} has no step to run with this denoising strength: use more.", field="steps"
        )
    n = len(sigmas) - 1
    return (start, *(start * (end / start) ** (i / n) for i in range(1, n)), end)


def _distilled(table: NoiseTable) -> tuple[NoiseTable, int]:
    """The levels that a consistency model of this table was distilled at, and the timesteps from one to the next."""
    stride = max(len(table) // DISTILLED_TIMESTEPS, 1)
    return table.every(stride), stride


def _counts(sampler: SamplerSpec, sigmas: tuple[float, ...]) -> tuple[int, int]:
    """How many steps are yielded, and how many model calls they take."""
    steps = len(sigmas) - 1
    if sampler.call_budget:
        return len(fast_orders(steps)), steps
    if sampler.second_order:
        return steps, 2 * steps - (sigmas[-1] == 0)
    return steps, steps + sampler.extra_first_calls


def _knobs(sampler: SamplerSpec, options: SamplerOptions) -> Knobs:
    return Knobs(
        eta=sampler.eta(options),
        s_churn=options.s_churn,
        s_tmin=options.s_tmin,
        s_tmax=options.s_tmax or math.inf,
        s_noise=options.s_noise,
        uni_pc_variant=options.uni_pc_variant,
        uni_pc_order=options.uni_pc_order,
        uni_pc_lower_order_final=options.uni_pc_lower_order_final,
    )
