"""One case of samplers.json, ready to be run: what the tests and the table of accuracy in the documentation share."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.samplers import ImageNoise, NoiseSource, NoiseTable, SamplingPlan, plan
from studio.schema.parts import SamplerOptions
from tests.samplers.analytic import MixtureDenoiser, RecordedNoise
from tests.vector_files import load_json, vector_path

VECTORS = load_json("samplers.json")

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

    def recorded(self) -> tuple[Tensor, RecordedNoise]:
        """The result with the noise that the reference drew, and that noise."""
        images = len(self.seeds)
        increments = array(self.case["brownian_noise"], images) if "brownian_noise" in self.case else None
        noise = RecordedNoise(array(self.case["rng_noise"], images), increments)
        return self.result(noise, noise.start()), noise

    def own(self) -> Tensor:
        """The result with noise drawn here."""
        noise = ImageNoise(self.seeds, tuple(VECTORS["latent_shape"]), source=self.source, ensd=self.options.ensd)
        return self.result(noise, noise.start())

    def undecided(self) -> bool:
        """Whether the result hangs on a tie that float noise decided, and was decided otherwise here. To be asked after a run."""
        agree = np.allclose(self.denoiser.sigmas, self.expected_calls, rtol=1e-3)
        return "a1111_unstable" in self.case and not agree

    def same_path(self) -> bool:
        """Whether the Brownian paths are asked at exactly the recorded levels, so that the noise must be the same too."""
        _, noise = Run(self.case).recorded()
        return noise.asked == [tuple(pair) for pair in self.case["brownian_intervals"]]

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
