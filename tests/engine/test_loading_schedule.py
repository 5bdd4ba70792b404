"""Noise schedules against diffusers' schedulers and closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from studio.engine.loading_schedule import alphas_cumprod, zero_terminal
from studio.errors import IncompatibleFile

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


@pytest.mark.parametrize(
    "config",
    [
        SD,
        SD | {"beta_end": 0.020},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 500},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        {"trained_betas": [0.1, 0.2, 0.4]},
        {},
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_it_is_the_schedule_that_diffusers_makes(config: dict[str, Any], zero: bool) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**config, rescale_betas_zero_snr=zero).alphas_cumprod
    ours = alphas_cumprod(config, zero)
    assert ours.dtype == torch.float64
    assert ours.shape == theirs.shape
    # diffusers' own float32 arithmetic; the last value of a zero-terminal schedule is a stand-in for zero.
    count = len(ours) - zero
    assert torch.allclose(ours[:count], theirs[:count].double(), rtol=2e-5, atol=1e-7)


def test_zero_terminal_schedules_keep_the_start_and_end_in_almost_nothing() -> None:
    plain, zero = alphas_cumprod(SD, False), alphas_cumprod(SD, True)
    assert float(zero[0]) == pytest.approx(float(plain[0]), rel=1e-12)
    assert bool((zero[1:] < zero[:-1]).all())
    assert math.sqrt((1 - float(zero[-1])) / float(zero[-1])) == pytest.approx(4518.7, rel=1e-3)


def test_a_schedule_is_moved_as_diffusers_moves_it_and_only_once() -> None:
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    plain = alphas_cumprod(SD, False)
    betas = torch.cat((1 - plain[:1], 1 - plain[1:] / plain[:-1]))
    theirs = (1 - rescale_zero_terminal_snr(betas)).cumprod(0)
    moved = zero_terminal(plain)
    torch.testing.assert_close(moved[:-1], theirs[:-1], rtol=1e-9, atol=0)
    assert float(theirs[-1]) == 0 < float(moved[-1]) < 1e-7
    assert torch.equal(zero_terminal(moved), moved)


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "sigmoid"},
        {"num_train_timesteps": 1},
        {"num_train_timesteps": 10**9},
        {"beta_start": "x"},
        {"beta_end": 1.5},
        {"trained_betas": [0.1, 2.0]},
        {"trained_betas": [[0.1], [0.2]]},
        {"trained_betas": "abc"},
        {"beta_start": math.nan},
    ],
)
def test_schedules_that_make_no_sense_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleFile, match="noise schedule cannot be used"):
        alphas_cumprod(config, False)
