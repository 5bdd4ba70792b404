"""The noise levels in half precision, as A1111 before 1.7 computed them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.samplers.noise_table import NoiseTable


def alphas(first: float = 0.00085, last: float = 0.012, *, linear: bool = False) -> torch.Tensor:
    """ᾱ of Stable Diffusion, or of an even ramp of β."""
    ramp = torch.linspace(first if linear else first**0.5, last if linear else last**0.5, 1000, dtype=torch.float64)
    return (1 - (ramp if linear else ramp**2)).cumprod(0)


def test_every_stage_is_rounded_to_half_precision() -> None:
    """numpy's half floats are the oracle."""
    rounded = alphas().numpy().astype(np.float16)
    one = np.float16(1)
    sigmas = np.sqrt((one - rounded) / rounded)
    assert sigmas.dtype == np.float16
    table = NoiseTable.downcast(alphas())
    assert table.sigmas.dtype == table.log_sigmas.dtype == torch.float32
    assert np.array_equal(table.sigmas.numpy(), sigmas.astype(np.float32))
    assert np.array_equal(table.log_sigmas.numpy(), np.log(sigmas).astype(np.float32))


def test_it_is_near_the_full_one_and_is_interpolated_in_float32() -> None:
    table, full = NoiseTable.downcast(alphas()), NoiseTable.scaled_linear()
    # near t = 0 one step of half precision is half a step of the table: 1 - ᾱ is 0.00085 there
    assert float(((table.sigmas - full.sigmas) / full.sigmas).abs()[100:].max()) < 2e-3
    assert not torch.equal(table.sigmas, full.sigmas)
    middle = float(torch.exp((table.log_sigmas[500] + table.log_sigmas[501]) / 2))
    assert table.sigma(500.5) == pytest.approx(middle, rel=1e-6)
    assert table.timestep(middle) == pytest.approx(500.5, abs=1e-3)


def test_levels_that_half_precision_cannot_tell_apart_do_no_harm() -> None:
    table = NoiseTable.downcast(alphas(0.0001, 0.02, linear=True))
    assert table.sigma_min > 0 and torch.isfinite(table.log_sigmas).all()
    assert (table.sigmas[1:] >= table.sigmas[:-1]).all() and not (table.sigmas[1:] > table.sigmas[:-1]).all()
    for sigma in (table.sigma_min / 2, *table.sigmas[:20].tolist(), 1.0, table.sigma_max * 2):
        assert 0 <= table.timestep(sigma) <= 999


def test_a_last_level_too_high_for_half_precision_stays_finite() -> None:
    ends_in_noise = torch.cat((alphas()[:-1], torch.tensor([4.9e-8], dtype=torch.float64)))
    assert 4000 < NoiseTable.downcast(ends_in_noise).sigma_max < 4600
