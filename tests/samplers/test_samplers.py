"""What must hold for every sampler whatever the reference: order of accuracy, distribution, batches, repeatability, cancelling.

Data from one Gaussian N(μ, v) has an exact denoiser, D(x; σ) = (v·x + σ²·μ)/(v + σ²), and an exact solution of the
probability-flow ODE, x(σ') = μ + (x(σ) − μ)·√((v + σ'²)/(v + σ²)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from studio.samplers import SAMPLERS, ImageNoise, NoiseTable, SamplerSpec, Step, find_sampler, plan
from studio.samplers.types import Knobs
from studio.schema.parts import SamplerOptions

MEAN, VARIANCE = 0.5, 0.3
SIGMA_START, SIGMA_END = 10.0, 0.1
SEEDS = (7, 8, 9, 10)
SHAPE = (4, 6, 5)
TABLE = NoiseTable.scaled_linear()

every_sampler = pytest.mark.parametrize("spec", SAMPLERS, ids=lambda spec: spec.name)


class GaussianDenoiser:
    """Elementwise, so that a batch cannot change a single picture's numbers."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return (x * VARIANCE + sigma**2 * MEAN) / (VARIANCE + sigma**2)

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        denoised = self(x, sigma)
        return denoised, denoised


def exact(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    return MEAN + (x - MEAN) * math.sqrt((VARIANCE + sigma_next**2) / (VARIANCE + sigma**2))


def log_ramp(n: int) -> list[float]:
    return [SIGMA_START * (SIGMA_END / SIGMA_START) ** (i / n) for i in range(n + 1)]


def even_ramp(n: int) -> list[float]:
    return [SIGMA_START + (SIGMA_END - SIGMA_START) * i / n for i in range(n + 1)]


def last_of(steps: Iterator[Step]) -> Step:
    *_, last = steps
    return last


def error_with(spec: SamplerSpec, sigmas: list[float], knobs: Knobs) -> float:
    """Largest error after a run between two levels above 0 at η = 0, in float64."""
    x = torch.linspace(-20, 20, 9, dtype=torch.float64).view(1, 1, 3, 3)

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.full_like(x, 1e6)  # must end up multiplied by zero

    result = last_of(spec.load()(GaussianDenoiser(), x, sigmas, noise, knobs)).x
    if spec.timesteps:
        result = result * math.sqrt(1 + SIGMA_END**2)
    return float((result - exact(x, SIGMA_START, SIGMA_END)).abs().max())


@pytest.mark.parametrize(
    "name, order, knobs",
    [
        ("Euler", 1, Knobs()),
        ("Euler a", 1, Knobs()),
        ("DDIM", 1, Knobs()),
        ("DDIM CFG++", 1, Knobs()),
        ("Heun", 2, Knobs()),
        ("Restart", 2, Knobs()),
        ("DPM2", 2, Knobs()),
        ("DPM2 a", 2, Knobs()),
        ("LMS", 2, Knobs()),  # of order 4 inside, but started with one Euler step
        ("PLMS", 3, Knobs()),  # likewise, started with one improved Euler step
        ("DPM++ 2M", 2, Knobs()),
        ("DPM++ 2S a", 2, Knobs()),
        ("DPM++ SDE", 2, Knobs()),
        ("DPM++ 2M SDE", 2, Knobs()),
        ("DPM++ 2M SDE Heun", 2, Knobs()),
        ("DPM++ 3M SDE", 2, Knobs()),  # of order 3 inside, started with one step of order 1
        ("DPM fast", 3, Knobs()),
        ("UniPC", 2, Knobs(uni_pc_order=1, uni_pc_lower_order_final=False)),
        ("UniPC", 3, Knobs(uni_pc_order=2, uni_pc_lower_order_final=False)),
        ("UniPC", 3, Knobs(uni_pc_order=2, uni_pc_lower_order_final=False, uni_pc_variant="bh2")),
        ("UniPC", 4, Knobs(uni_pc_order=3, uni_pc_lower_order_final=False)),
        ("UniPC", 4, Knobs(uni_pc_order=3, uni_pc_lower_order_final=False, uni_pc_variant="bh2")),
        ("UniPC", 2, Knobs()),  # the last step is of order 1
    ],
)
def test_order_of_convergence(name: str, order: int, knobs: Knobs) -> None:
    """Halving the length of the steps divides the error by about 2^order, or by more."""
    spec = find_sampler(name)
    # Restart is plain Heun below 20 steps; 50 and 101 calls make 17 and 34 steps of DPM fast, the last of order 2; the weights
    # of PLMS are those for even steps.
    coarse, fine = {"Restart": (9, 18), "DPM fast": (50, 101), "PLMS": (200, 400)}.get(name, (48, 96))
    ramp = even_ramp if name == "PLMS" else log_ramp
    before, after = (error_with(spec, ramp(n), knobs) for n in (coarse, fine))
    assert after < 0.05
    assert math.log2(before / after) > order - 0.25


def test_dpm_adaptive_keeps_its_tolerance() -> None:
    assert error_with(find_sampler("DPM adaptive"), log_ramp(1), Knobs()) < 0.05


def sample_gaussian(name: str, steps: int, options: SamplerOptions) -> Tensor:
    p = plan(name, "Karras", steps, TABLE, options)
    noise = ImageNoise([3], (4, 40, 40))
    # A start of exactly the right variance; the usual one, N(0, σ²), leaves the data's mean and variance out.
    x = noise.start() * math.sqrt(p.sigmas[0] ** 2 + VARIANCE) + MEAN
    return last_of(p.run(GaussianDenoiser(), x, noise)).x


@pytest.mark.parametrize("name", [spec.name for spec in SAMPLERS if spec.default_eta is not None])
def test_noise_gives_the_data_distribution(name: str) -> None:
    """With η = 1 the samples of many steps have the mean and the variance of the data: the noise is of the right size."""
    steps = 80 if find_sampler(name).brownian else 400
    x = sample_gaussian(name, steps, SamplerOptions(eta=1.0))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.07)


@pytest.mark.parametrize("name", [spec.name for spec in SAMPLERS if spec.churn])
def test_churn_gives_the_data_distribution(name: str) -> None:
    x = sample_gaussian(name, 400, SamplerOptions(s_churn=10))
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.07)


def test_restart_jumps_back_up() -> None:
    p = plan("Restart", "Automatic", 20, TABLE, SamplerOptions())
    noise = ImageNoise([3, 4], (4, 48, 48))
    x = noise.start() * math.sqrt(p.sigmas[0] ** 2 + VARIANCE) + MEAN
    steps = list(p.run(GaussianDenoiser(), x, noise))
    jumps = [(a.sigma_next, b.sigma) for a, b in pairwise(steps) if b.sigma > a.sigma_next]
    assert len(jumps) == 1
    low, high = jumps[0]
    assert low < 0.2
    assert high > 1
    assert len(steps) == p.steps
    assert float(steps[-1].x.var()) == pytest.approx(VARIANCE, rel=0.06)


def images_of(spec: SamplerSpec, seeds: Sequence[int], options: SamplerOptions) -> Tensor:
    p = plan(spec, "Automatic", 6, TABLE, options)
    noise = ImageNoise(seeds, SHAPE, ensd=options.ensd)
    return last_of(p.run(GaussianDenoiser(), p.start(noise.start()), noise)).x


@pytest.mark.parametrize("spec", [s for s in SAMPLERS if s.name != "DPM adaptive"], ids=lambda spec: spec.name)
def test_batch_equals_singles_bit_for_bit(spec: SamplerSpec) -> None:
    """DPM adaptive is left out: its step control looks at the error of the whole batch."""
    options = SamplerOptions(eta=0.8 if spec.default_eta is not None else None, s_churn=3.0, ensd=11)
    batch = images_of(spec, SEEDS, options)
    for image, seed in zip(batch, SEEDS, strict=True):
        assert torch.equal(image, images_of(spec, [seed], options)[0])


@every_sampler
def test_same_request_gives_the_same_bytes(spec: SamplerSpec) -> None:
    first, second = (images_of(spec, SEEDS, SamplerOptions()) for _ in range(2))
    assert first.numpy().tobytes() == second.numpy().tobytes()
    assert not torch.equal(first[0], first[1])


@every_sampler
def test_steps_are_as_described(spec: SamplerSpec) -> None:
    """Counted from 0, at the level the step left, of the latents' shape, and x at that level is x0 + σ·n."""
    p = plan(spec, "Automatic", 6, TABLE, SamplerOptions())
    noise = ImageNoise(SEEDS, SHAPE)
    start = p.start(noise.start())
    steps = list(p.run(GaussianDenoiser(), start, noise))
    assert [step.index for step in steps] == list(range(len(steps)))
    assert steps[0].sigma == pytest.approx(p.sigmas[0])
    for before, after in pairwise(steps):
        assert after.sigma == pytest.approx(before.sigma_next)
        assert after.sigma < before.sigma
    for step in steps:
        assert step.x.shape == step.denoised.shape == start.shape
        assert step.x.dtype == step.denoised.dtype == torch.float32
    assert steps[-1].sigma_next == pytest.approx(p.sigmas[-1])


@every_sampler
def test_sampler_leaves_its_input_alone(spec: SamplerSpec) -> None:
    p = plan(spec, "Automatic", 4, TABLE, SamplerOptions())
    noise = ImageNoise(SEEDS, SHAPE)
    start = p.start(noise.start())
    kept = start.clone()
    seen = [(step, step.x.clone()) for step in p.run(GaussianDenoiser(), start, noise)]
    assert torch.equal(start, kept)
    for step, x in seen:
        assert torch.equal(step.x, x)


@every_sampler
def test_closing_the_generator_stops_the_run(spec: SamplerSpec) -> None:
    p = plan(spec, "Automatic", 12, TABLE, SamplerOptions())
    noise = ImageNoise(SEEDS, SHAPE)
    denoiser = GaussianDenoiser()
    running = p.run(denoiser, p.start(noise.start()), noise)
    assert denoiser.calls == 0
    next(running)
    next(running)
    calls = denoiser.calls
    running.close()
    assert next(running, None) is None
    assert denoiser.calls == calls


def test_cfgpp_without_guidance_is_ddim() -> None:
    results = [images_of(find_sampler(name), SEEDS, SamplerOptions()) for name in ("DDIM CFG++", "DDIM")]
    assert torch.equal(*results)


def test_cfgpp_refuses_a_denoiser_without_uncond() -> None:
    p = plan("DDIM CFG++", "Automatic", 5, TABLE, SamplerOptions())
    noise = ImageNoise(SEEDS, SHAPE)

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        return x

    with pytest.raises(TypeError, match="guided_and_uncond"):
        next(p.run(denoiser, p.start(noise.start()), noise))


def test_lcm_asks_only_its_own_timesteps() -> None:
    asked: list[float] = []

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return x * 0

    p = plan("LCM", "Karras", 8, TABLE, SamplerOptions())
    noise = ImageNoise(SEEDS, SHAPE)
    list(p.run(denoiser, p.start(noise.start()), noise))
    distilled = {TABLE.sigma(t) for t in range(19, 1000, 20)}
    assert len(asked) == 8
    assert all(min(abs(sigma / one - 1) for one in distilled) < 1e-6 for sigma in asked)
