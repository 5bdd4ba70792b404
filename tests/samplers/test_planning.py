"""Runs as planned: counts, starts, options, and what is refused."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from studio.errors import InvalidRequest, UnknownName
from studio.samplers import SAMPLERS, SCHEDULES, ImageNoise, NoiseTable, SamplerSpec, ScheduleSpec, plan
from studio.samplers.schedules import sigma_schedule
from studio.samplers.table import find_schedule
from studio.schema.parts import SamplerOptions

TABLE = NoiseTable.scaled_linear()
PLAIN = SamplerOptions()
SHAPE = (4, 3, 3)


class CountingDenoiser:
    def __init__(self) -> None:
        self.sigmas: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.sigmas.append(sigma)
        return x / (1 + sigma**2)

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), x * 0


def fewest_steps(spec: SamplerSpec) -> int:
    """Samplers on timesteps visit one level less than they have timesteps."""
    return 2 if spec.timesteps and not spec.continuous_time else 1


@pytest.mark.parametrize("spec", SAMPLERS, ids=lambda spec: spec.name)
def test_every_sampler_on_every_schedule_runs_as_counted(spec: SamplerSpec) -> None:
    for schedule in SCHEDULES:
        for steps in (fewest_steps(spec), 4, 21):
            p = plan(spec, schedule, steps, TABLE, PLAIN)
            noise = ImageNoise([1], SHAPE)
            denoiser = CountingDenoiser()
            done = list(p.run(denoiser, p.start(noise.start()), noise))
            assert torch.isfinite(done[-1].x).all()
            assert all(type(sigma) is float and sigma > 0 for sigma in denoiser.sigmas)
            if spec.name != "DPM adaptive":
                assert len(done) == p.steps
                # Restart may step down to 0 more than once, and such a step takes one call less.
                assert 0 <= p.model_calls - len(denoiser.sigmas) <= (2 if spec.name == "Restart" else 0)


@pytest.mark.parametrize("spec", SAMPLERS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
@pytest.mark.parametrize("exact_steps", [False, True])
def test_image_to_image_runs_as_counted(spec: SamplerSpec, strength: float, exact_steps: bool) -> None:
    p = plan(spec, "Automatic", 10, TABLE, PLAIN, strength=strength, exact_steps=exact_steps)
    noise = ImageNoise([1], SHAPE)
    denoiser = CountingDenoiser()
    done = list(p.run(denoiser, p.start(noise.start(), torch.ones(1, *SHAPE)), noise))
    assert torch.isfinite(done[-1].x).all()
    if spec.name != "DPM adaptive":
        assert len(done) == p.steps
    if not (spec.timesteps or spec.own_range):
        assert p.steps == (10 if exact_steps else int(min(strength, 0.999) * 10) + 1)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("spec", SAMPLERS, ids=lambda spec: spec.name)
def test_the_last_of_a_thousand_steps_are_run_or_refused(spec: SamplerSpec, steps: int) -> None:
    """The schedule DDIM has no level for the very last."""
    for schedule in ("Simple", "DDIM"):
        with contextlib.suppress(InvalidRequest):
            p, noise = (
                plan(spec, schedule, steps, TABLE, PLAIN, strength=steps / 1000, exact_steps=True),
                ImageNoise([1], SHAPE),
            )
            *_, last = p.run(CountingDenoiser(), p.start(noise.start(), torch.ones(1, *SHAPE)), noise)
            assert torch.isfinite(last.x).all()


def test_more_strength_starts_from_more_noise() -> None:
    starts = [plan("Euler", "Karras", 20, TABLE, PLAIN, strength=s).start_sigma for s in (0.1, 0.4, 0.7, 1.0)]
    assert all(a < b for a, b in pairwise(starts))
    assert starts[-1] == plan("Euler", "Karras", 20, TABLE, PLAIN).sigmas[0]


def test_start_noise_is_scaled_to_the_first_level() -> None:
    noise = torch.ones(1, *SHAPE)
    p = plan("Euler", "Karras", 20, TABLE, PLAIN)
    assert p.start(noise).flatten()[0] == pytest.approx(p.sigmas[0])
    sgm = plan("Euler", "Karras", 20, TABLE, SamplerOptions(sgm_noise_multiplier=True))
    assert sgm.start(noise).flatten()[0] == pytest.approx(math.sqrt(1 + p.sigmas[0] ** 2))
    ddim = plan("DDIM", "Automatic", 20, TABLE, PLAIN)
    assert ddim.start(noise).flatten()[0] == pytest.approx(math.sqrt(1 + ddim.sigmas[0] ** 2))


def test_brownian_range_is_that_of_the_whole_schedule() -> None:
    whole = plan("DPM++ SDE", "Karras", 20, TABLE, PLAIN)
    part = plan("DPM++ SDE", "Karras", 20, TABLE, PLAIN, strength=0.4)
    assert part.sigma_range == whole.sigma_range == (whole.sigmas[-2], whole.sigmas[0])
    assert part.sigmas == whole.sigmas[-len(part.sigmas) :]


def test_timestep_samplers_ignore_the_schedule() -> None:
    for name in ("DDIM", "PLMS", "UniPC"):
        assert plan(name, "Karras", 12, TABLE, PLAIN).sigmas == plan(name, "Automatic", 12, TABLE, PLAIN).sigmas


def test_unknown_names_are_refused_with_near_matches() -> None:
    with pytest.raises(UnknownName) as error:
        plan("Eulr a", "Automatic", 20, TABLE, PLAIN)
    assert "Euler a" in error.value.choices
    with pytest.raises(UnknownName) as error:
        plan("Euler", "Karas", 20, TABLE, PLAIN)
    assert "Karras" in error.value.choices


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "UniPC", "DPM fast", "LCM"])
@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(sampler: str, steps: int) -> None:
    with pytest.raises(InvalidRequest, match=str(steps)):
        plan(sampler, "Automatic", steps, TABLE, PLAIN)


def test_runs_without_a_step_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="DDIM has no step"):
        plan("DDIM", "Automatic", 1, TABLE, PLAIN)
    with pytest.raises(InvalidRequest, match="strength"):
        plan("DDIM", "Automatic", 10, TABLE, PLAIN, strength=0.0)
    with pytest.raises(InvalidRequest, match="strength"):
        plan("DPM fast", "Automatic", 10, TABLE, PLAIN, strength=0.0)
    with pytest.raises(InvalidRequest, match="strength of 0"):
        plan("Euler", "Automatic", 10, TABLE, PLAIN, strength=0.0, exact_steps=True)
    with pytest.raises(InvalidRequest, match="1 to 1000"):
        plan("PLMS", "Automatic", 1001, TABLE, PLAIN)


def test_an_empty_sigma_range_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="20"):
        plan("Euler", "Karras", 10, TABLE, SamplerOptions(sigma_min=20.0))
    with pytest.raises(InvalidRequest, match=r"0\.01"):
        plan("Euler", "Exponential", 10, TABLE, SamplerOptions(sigma_max=0.01))


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s.label != "Automatic"], ids=lambda s: s.label)
def test_schedules_fall_to_zero(schedule: ScheduleSpec) -> None:
    for steps in (1, 2, 13, 150):
        sigmas = sigma_schedule(schedule, steps, TABLE, PLAIN)
        assert all(a > b for a, b in pairwise(sigmas))
        assert len(sigmas) >= steps + 1
        assert (sigmas[-1] == 0) == (schedule.label != "KL Optimal")


@pytest.mark.parametrize(
    "alpha, beta, quantile",
    [
        (0.5, 0.5, lambda q: math.sin(math.pi * q / 2) ** 2),  # the arcsine distribution
        (0.4, 1, lambda q: q ** (1 / 0.4)),
        (1, 0.7, lambda q: 1 - (1 - q) ** (1 / 0.7)),
        (1, 1, lambda q: q),
    ],
)
def test_beta_lays_quantiles_on_sigma(alpha: float, beta: float, quantile: Callable[[float], float]) -> None:
    options = SamplerOptions(beta_dist_alpha=alpha, beta_dist_beta=beta, sigma_min=0.5, sigma_max=10)
    expected = [0.5 + 9.5 * quantile(1 - step / 11) for step in range(12)]
    assert sigma_schedule(find_schedule("Beta"), 12, TABLE, options) == pytest.approx([*expected, 0], rel=1e-6)


def test_beta_steps_that_fall_together_are_refused() -> None:
    options = SamplerOptions(beta_dist_alpha=0.02)
    assert len(sigma_schedule(find_schedule("Karras"), 20, TABLE, options)) == 21
    with pytest.raises(InvalidRequest, match=r"20 steps.*alpha 0\.02 and beta 0\.6"):
        sigma_schedule(find_schedule("Beta"), 20, TABLE, options)


def test_discarding_drops_the_value_before_the_last() -> None:
    spec = find_schedule("Karras")
    longer = sigma_schedule(spec, 11, TABLE, PLAIN)
    assert sigma_schedule(spec, 10, TABLE, PLAIN, discard_penultimate=True) == (*longer[:-2], longer[-1])
    assert plan("Euler", "Karras", 10, TABLE, SamplerOptions(discard_penultimate=True)).sigmas[-2] == longer[-3]


def test_noise_tables() -> None:
    linear = NoiseTable.linear(1e-4, 0.02, 100)
    assert len(linear) == 100
    assert linear.sigma_min == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-5)
    assert [linear.timestep(linear.sigma(t)) for t in (0, 12.5, 99)] == pytest.approx([0, 12.5, 99], abs=1e-3)
    assert (linear.timestep(1e-9), linear.timestep(1e9)) == (0, 99)
    assert linear.sigma(-5) == linear.sigma_min
    assert linear.sigma(500) == pytest.approx(linear.sigma_max)


@pytest.mark.parametrize("alphas", [[0.9, 0.5, 0.0], [0.5, 0.9], [1.0, 0.5]])
def test_impossible_noise_tables_are_refused(alphas: list[float]) -> None:
    with pytest.raises(InvalidRequest, match="alphas_cumprod"):
        NoiseTable.from_alphas_cumprod(alphas)


def test_short_tables_can_be_sampled() -> None:
    """Also with the consistency sampler, whose own table would have more entries."""
    table = NoiseTable.linear(1e-3, 0.2, 30)
    for name in ("LCM", "UniPC", "DDIM", "Euler"):
        p = plan(name, "Automatic", 5, table, PLAIN)
        noise = ImageNoise([1], SHAPE)
        *_, last = p.run(CountingDenoiser(), p.start(noise.start()), noise)
        assert torch.isfinite(last.x).all()


@pytest.mark.parametrize("spec", [spec for spec in SAMPLERS if spec.can_branch], ids=lambda spec: spec.name)
def test_the_rest_of_a_plan_runs_as_counted(spec: SamplerSpec) -> None:
    """Steps and calls that are left out and those that are run make up the whole."""
    whole = plan(spec, "Automatic", 12, TABLE, SamplerOptions(s_churn=2.0))
    for k in (1, 5, whole.steps - 1):
        rest, skipped, calls = whole.below(whole.sigmas[k])
        assert rest.sigmas == whole.sigmas[k:]
        assert (skipped, skipped + rest.steps) == (k, whole.steps)
        assert calls + rest.model_calls == whole.model_calls + spec.extra_first_calls  # PLMS begins anew
        assert rest.knobs.s_churn / rest.steps == pytest.approx(whole.knobs.s_churn / whole.steps)
        assert rest.sigma_range == whole.sigma_range
        denoiser, noise = CountingDenoiser(), ImageNoise([1], SHAPE)
        done = list(rest.run(denoiser, rest.start(noise.start()), noise))
        assert (len(done), len(denoiser.sigmas)) == (rest.steps, rest.model_calls)
        assert torch.isfinite(done[-1].x).all()


def test_a_branch_may_begin_anywhere() -> None:
    p = plan("Euler", "Karras", 10, TABLE, PLAIN)
    between = (p.sigmas[3] * p.sigmas[4]) ** 0.5
    assert p.below(between)[0].sigmas == (between, *p.sigmas[4:])
    assert p.below(p.sigmas[4] * 1.0005)[0].sigmas == (p.sigmas[4] * 1.0005, *p.sigmas[5:])
    above, skipped, calls = p.below(100.0)
    assert (above.sigmas, skipped, calls) == ((100.0, *p.sigmas), 0, 0)
    assert above.sigma_range == (p.sigma_range[0], 100.0)
    assert p.below(p.sigmas[-2])[0].steps == 1
    with pytest.raises(InvalidRequest, match="none left below sigma"):
        plan("DDIM", "Automatic", 10, TABLE, PLAIN).below(0.03)
    with pytest.raises(InvalidRequest, match=r"Restart chooses its own noise levels.*These can: DPM\+\+ 2M, "):
        plan("Restart", "Automatic", 10, TABLE, PLAIN).below(1.0)
