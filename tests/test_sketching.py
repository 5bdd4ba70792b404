"""What a live picture is made of: few steps, a schedule that can do with them, a sampler that settles."""

from __future__ import annotations

import pytest

from studio.samplers import SAMPLERS
from studio.schema.parts import BranchPoint, SamplerOptions, Variation
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest
from studio.sketching import sketch_request


def test_one_picture_of_few_steps_and_everything_else_as_it_is() -> None:
    asked = GenerationRequest(
        prompt="a fox",
        steps=30,
        schedule="Karras",
        batch_count=3,
        batch_size=4,
        seed=7,
        cfg_scale=4,
        width=128,
        variation=Variation(seed=3, strength=0.2),
        face_restoration="GFPGAN",
        plot=Plot(x_type="Steps", x_values="5, 6"),
    )
    sketch = sketch_request(asked, 5)
    changes = {
        "steps": 5,
        "schedule": "SGM Uniform",
        "batch_count": 1,
        "batch_size": 1,
        "plot": None,
        "face_restoration": "",
    }
    assert sketch == GenerationRequest.model_validate({**asked.model_dump(), **changes})


@pytest.mark.parametrize(
    "asked, painted",
    [
        ("DPM++ 2M", "DPM++ 2M"),
        ("euler", "euler"),
        ("Heun", "Heun"),
        ("DDIM", "DDIM"),
        ("UniPC", "UniPC"),
        ("LCM", "LCM"),
        ("Euler a", "DPM++ 2M"),
        ("DPM++ SDE", "DPM++ 2M"),
        ("DPM adaptive", "DPM++ 2M"),
        ("DPM fast", "DPM++ 2M"),
        ("Restart", "DPM++ 2M"),
    ],
)
def test_a_sampler_that_draws_or_wanders_gives_way(asked: str, painted: str) -> None:
    assert sketch_request(GenerationRequest(sampler=asked), 6).sampler.casefold() == painted.casefold()


def test_eta_decides_where_it_is_given() -> None:
    def sampler(name: str, eta: float) -> str:
        return sketch_request(GenerationRequest(sampler=name, sampler_options=SamplerOptions(eta=eta)), 6).sampler

    assert (sampler("Euler a", 0), sampler("DDIM", 0.5)) == ("Euler a", "DPM++ 2M")


def test_every_sampler_has_a_live_picture() -> None:
    for spec in SAMPLERS:
        assert sketch_request(GenerationRequest(sampler=spec.name), 4).steps == 4


def test_a_branch_goes_by_its_own_steps() -> None:
    branch = BranchPoint(step=9, origin="a fox\nSteps: 20, Sampler: Euler, Seed: 1, Size: 128x128")
    asked = GenerationRequest(sampler="Euler a", steps=20, schedule="Karras", batch_count=2, branch=branch)
    assert sketch_request(asked, 6) == asked.model_copy(update={"batch_count": 1})
