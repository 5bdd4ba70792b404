"""Every sampler against the final latents that A1111 and Forge gave on the analytic denoiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from studio.errors import InvalidRequest
from studio.samplers import SAMPLERS, SCHEDULES
from studio.samplers.planning import ddim_timesteps, img2img_steps
from tests.samplers.vector_runs import OWN_BROWNIAN_ATOL, VECTORS, Run

CASES = [pytest.param(case, id=f"{case['id']} {case['sampler']} {case['steps']}") for case in VECTORS["cases"]]


def skip_unstable(run: Run) -> None:
    """Skip a case whose result hangs on a tie that was decided otherwise here."""
    if run.undecided():
        pytest.skip(run.case["a1111_unstable"])


@pytest.mark.parametrize("case", CASES)
def test_sampler_vectors_with_recorded_noise(case: dict[str, Any]) -> None:
    run = Run(case)
    x, noise = run.recorded()
    skip_unstable(run)
    torch.testing.assert_close(x, run.expected, rtol=0, atol=case["atol"])
    assert noise.drawn <= case["rng_draws"]
    if "brownian_noise" in case:
        np.testing.assert_allclose(noise.asked, case["brownian_intervals"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_sampler_vectors_with_own_noise(case: dict[str, Any]) -> None:
    run = Run(case)
    x = run.own()
    skip_unstable(run)
    atol = case["atol"]
    if "brownian_noise" in case and not run.same_path():
        atol = case.get("atol_own_brownian", OWN_BROWNIAN_ATOL)
    torch.testing.assert_close(x, run.expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_model_calls_vectors(case: dict[str, Any]) -> None:
    run = Run(case)
    run.own()
    skip_unstable(run)
    assert len(run.denoiser.sigmas) == len(run.expected_calls)
    # UniPC's spacing even in log SNR runs to the table's last sigma here, to a point interpolated beside it there.
    rel = 1e-2 if run.options.uni_pc_skip_type == "logSNR" else 1e-4
    np.testing.assert_allclose(run.denoiser.sigmas, run.expected_calls, rtol=rel)


@pytest.mark.parametrize("entry", VECTORS["img2img_steps"])
def test_img2img_steps_vectors(entry: dict[str, Any]) -> None:
    exact = entry["fix_steps_option"] or entry["exact_steps_argument"] is not None
    steps = entry["exact_steps_argument"] or entry["steps"]
    assert list(img2img_steps(steps, entry["strength"], exact_steps=exact)) == entry["schedule_steps_and_t_enc"]


@pytest.mark.parametrize("entry", VECTORS["ddim_timesteps"])
def test_ddim_timesteps_vectors(entry: dict[str, Any]) -> None:
    expected = entry["timesteps"]
    steps = entry["steps"] + entry.get("always_discard_next_to_last_sigma", False)
    if isinstance(expected, list):
        assert list(ddim_timesteps(steps)) == expected
    elif "raises" in expected:
        with pytest.raises(InvalidRequest, match=str(steps)):
            ddim_timesteps(steps)
    else:
        timesteps = list(ddim_timesteps(steps))
        assert (len(timesteps), timesteps[:8], timesteps[-8:]) == tuple(
            expected[k] for k in ("count", "first8", "last8")
        )


def test_catalogue_vectors() -> None:
    theirs = {row["name"]: row for row in VECTORS["catalogue"]}
    assert SAMPLERS
    for spec in SAMPLERS:
        row = theirs[spec.name]
        assert list(spec.aliases) == row["aliases"]
        assert spec.options == row["options"]
    ours = [
        {
            "name": spec.name,
            "label": spec.label,
            "aliases": list(spec.aliases) or None,
            "default_rho": spec.default_rho,
            "need_inner_model": spec.needs_table,
        }
        for spec in SCHEDULES
    ]
    assert ours == VECTORS["schedules"]
