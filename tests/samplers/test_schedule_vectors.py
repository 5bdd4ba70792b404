"""Noise tables and schedules against the values that Forge, ComfyUI and k-diffusion gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.samplers import NoiseTable, find_schedule
from studio.samplers.schedules import sigma_schedule
from studio.schema.parts import SamplerOptions
from tests.vector_files import load_json

VECTORS = load_json("sigmas.json")
REL, ABS = 1e-5, 1e-6


def case_id(case: dict[str, Any]) -> str:
    return f"{case['model']} {case['schedule']} {case['steps']} {case.get('params', '')}"


def table(model: str) -> NoiseTable:
    return NoiseTable.scaled_linear(sdxl=model == "sdxl")


def test_training_table_vectors() -> None:
    expected = VECTORS["training"]
    ours = table("sd15")
    assert len(ours) == expected["count"]
    # Bit-equal, because the samplers' Brownian paths need it.
    assert ours.sigmas[expected["indices"]].tolist() == expected["sigmas"]
    assert ours.log_sigmas[expected["indices"]].tolist() == expected["log_sigmas"]
    assert float(ours.sigmas.double().sum()) == pytest.approx(expected["sigmas_sum_float64"], rel=REL)
    assert float(ours.sigmas.double().square().sum()) == pytest.approx(expected["sigmas_sumsq_float64"], rel=REL)
    assert float(ours.log_sigmas.double().sum()) == pytest.approx(expected["log_sigmas_sum_float64"], rel=REL)
    a1111 = VECTORS["training_a1111"]
    torch.testing.assert_close(ours.sigmas[a1111["indices"]], torch.tensor(a1111["sigmas"]), rtol=2e-5, atol=ABS)


def test_training_alphas_vectors() -> None:
    """ᾱ gives σ and σ gives ᾱ."""
    expected = VECTORS["training"]
    ours = table("sd15")
    alphas = 1 / (1 + ours.sigmas.double() ** 2)
    torch.testing.assert_close(
        alphas[expected["indices"]].float(), torch.tensor(expected["alphas_cumprod"]), rtol=REL, atol=ABS
    )
    again = NoiseTable.from_alphas_cumprod(alphas)
    torch.testing.assert_close(again.sigmas, ours.sigmas, rtol=1e-6, atol=0)


def test_conversion_vectors() -> None:
    given = VECTORS["conversions"]
    ours = table("sd15")
    assert [ours.nearest_timestep(sigma) for sigma in given["sigmas"]] == given["t_forge_nearest"]
    # The interpolated t is a quotient of differences of float32 logarithms: good to about 1e-4 of a timestep.
    assert [ours.timestep(s) for s in given["sigmas"]] == pytest.approx(given["t_kdiffusion_interp"], rel=REL, abs=1e-4)
    for name in ("sigma_of_t", "sigma_of_t_kdiffusion"):
        assert [ours.sigma(t) for t in given["ts"]] == pytest.approx(given[name], rel=REL, abs=ABS)


@pytest.mark.parametrize("case", VECTORS["cases"] + VECTORS["parameter_cases"], ids=case_id)
def test_schedule_vectors(case: dict[str, Any]) -> None:
    options = SamplerOptions(**case.get("params", {}))
    for model in (case["model"], *case.get("also", ())):
        sigmas = sigma_schedule(find_schedule(case["schedule"]), case["steps"], table(model), options)
        assert list(sigmas) == pytest.approx(case["sigmas"], rel=REL, abs=ABS)
        if "name" in case:
            assert find_schedule(case["name"]).label == case["schedule"]
