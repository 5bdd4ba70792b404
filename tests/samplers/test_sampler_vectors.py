"""Every sampler against the final latents that A1111 and Forge gave on the analytic denoiser."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from studio.errors import InvalidRequest
from studio.samplers import SAMPLERS, SCHEDULES, ImageNoise, NoiseSource, NoiseTable, SamplingPlan, plan
from studio.samplers.planning import ddim_timesteps, img2img_steps
from studio.schema.request import SamplerOptions
from tests.samplers.analytic import MixtureDenoiser, RecordedNoise
from tests.vector_files import load_json, vector_path

VECTORS = load_json("samplers.json")
CASES = [pytest.param(case, id=f"{case['id']} {case['sampler']} {case['steps']}") for case in VECTORS["cases"]]

OUR_NAME = {
    "eta_noise_seed_delta": "ensd",
    "always_discard_next_to_last_sigma": "discard_penultimate",
    "use_old_karras_scheduler_sigmas": "old_karras",
}
OWN_BROWNIAN_ATOL = 2e-2
"""Where the case names none: a Brownian path asked at sigmas that differ in the last float32 digit."""


@lru_cache(maxsize=1)
def arrays() -> dict[str, Tensor]:
    with np.load(vector_path("samplers.npz")) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def array(name: str, images: int) -> Tensor:
    """An array of draws [N, B, ...]; some names end in an index such as "[:, 0:1]", which `images` stands for."""
    return arrays()[name.partition("[")[0]][:, :images]


class Run:
    """One case, ready to run with any noise."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.seeds: list[int] = case.get("seeds", VECTORS["seeds"])
        given = case.get("options", {})
        self.options = SamplerOptions(**{OUR_NAME.get(k, k): v for k, v in given.items() if k != "randn_source"})
        self.source = given.get("randn_source", "CPU")
        self.img2img = case.get("img2img")
        self.plan = self._plan()
        self.denoiser = self._denoiser()

    def result(self, noise: NoiseSource, start: Tensor) -> Tensor:
        init = arrays()["img2img_init_latent"][: len(self.seeds)] if self.img2img else None
        *_, last = self.plan.run(self.denoiser, self.plan.start(start, init), noise)
        return last.x

    @property
    def from_a1111(self) -> bool:
        """Whether the expected values are those of A1111 itself, where they differ from Forge's."""
        return self.case.get("preferred") == "x_a1111" or "a1111_unstable" in self.case

    @property
    def expected(self) -> Tensor:
        return arrays()[self.case["x_a1111" if self.from_a1111 else "x"]]

    @property
    def expected_calls(self) -> list[float]:
        calls: list[float] = self.case["a1111_model_call_sigmas" if self.from_a1111 else "model_call_sigmas"]
        return calls

    def _plan(self) -> SamplingPlan:
        case, table = self.case, NoiseTable.scaled_linear()
        if not self.img2img:
            return plan(case["sampler"], case["schedule"], case["steps"], table, self.options)
        exact = self.img2img["exact_steps"]
        return plan(
            case["sampler"],
            case["schedule"],
            exact or case["steps"],
            table,
            self.options,
            strength=self.img2img["strength"],
            exact_steps=exact is not None,
        )

    def _denoiser(self) -> MixtureDenoiser:
        mixture = VECTORS["mixture"]
        scale = self.case.get("cfg_scale", 1.0)
        if "NOT divided" not in self.case.get("variant", ""):
            scale *= self.plan.guidance_factor
        return MixtureDenoiser(
            arrays()[mixture["means"]],
            mixture["variances"],
            mixture["weights_cond"],
            mixture["weights_uncond"] if self.case.get("uses_uncond") else None,
            scale,
        )


def skip_unstable(run: Run) -> None:
    """Skip a case whose result hangs on a tie that float noise decided, when it was decided otherwise here."""
    agree = np.allclose(run.denoiser.sigmas, run.expected_calls, rtol=1e-3)
    if "a1111_unstable" in run.case and not agree:
        pytest.skip(run.case["a1111_unstable"])


@pytest.mark.parametrize("case", CASES)
def test_sampler_vectors_with_recorded_noise(case: dict[str, Any]) -> None:
    run = Run(case)
    images = len(run.seeds)
    increments = array(case["brownian_noise"], images) if "brownian_noise" in case else None
    noise = RecordedNoise(array(case["rng_noise"], images), increments)
    x = run.result(noise, noise.start())
    skip_unstable(run)
    torch.testing.assert_close(x, run.expected, rtol=0, atol=case["atol"])
    assert noise.drawn <= case["rng_draws"]
    if increments is not None:
        np.testing.assert_allclose(noise.asked, case["brownian_intervals"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_sampler_vectors_with_own_noise(case: dict[str, Any]) -> None:
    run = Run(case)
    noise = ImageNoise(run.seeds, tuple(VECTORS["latent_shape"]), source=run.source, ensd=run.options.ensd)
    x = run.result(noise, noise.start())
    skip_unstable(run)
    atol = case["atol"]
    if "brownian_noise" in case and not same_path(run):
        atol = case.get("atol_own_brownian", OWN_BROWNIAN_ATOL)
    torch.testing.assert_close(x, run.expected, rtol=0, atol=atol)


def same_path(run: Run) -> bool:
    """Whether the Brownian paths are asked at exactly the recorded levels, so that the noise must be the same too."""
    increments = array(run.case["brownian_noise"], len(run.seeds))
    noise = RecordedNoise(array(run.case["rng_noise"], len(run.seeds)), increments)
    run.result(noise, noise.start())
    return noise.asked == [tuple(pair) for pair in run.case["brownian_intervals"]]


@pytest.mark.parametrize("case", CASES)
def test_model_calls_vectors(case: dict[str, Any]) -> None:
    run = Run(case)
    noise = ImageNoise(run.seeds, tuple(VECTORS["latent_shape"]), source=run.source, ensd=run.options.ensd)
    run.result(noise, noise.start())
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
