"""`GenerationRequest`: bounds, messages, and no value that JSON or PNG cannot hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InvalidRequest
from studio.schema.parts import MAX_PROMPT, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.request import GenerationRequest, RunOptions, make_request

PICTURE = {"image": "0" * 32}


@pytest.mark.parametrize(
    "data, field, said",
    [
        ({"width": 0}, "width", "64"),
        ({"height": 63}, "height", "64"),
        ({"width": 100000}, "width", "2048"),
        ({"steps": 0}, "steps", "1"),
        ({"steps": 151}, "steps", "150"),
        ({"cfg_scale": math.nan}, "cfg_scale", "0 to 100"),
        ({"cfg_scale": math.inf}, "cfg_scale", "0 to 100"),
        ({"seed": -2}, "seed", "-1"),
        ({"seed": 2**32}, "seed", "4,294,967,295"),
        ({"prompt": "a\0b"}, "prompt", "NUL"),
        ({"prompt": "\ud800"}, "prompt", "unicode"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "prompt", f"{MAX_PROMPT:,}"),
        ({"emphasis": "loud"}, "emphasis", "Original"),
        ({"sampler_options": {"eta": 2}}, "sampler_options.eta", "1"),
        ({"variation": {"strength": 1.01}}, "variation.strength", "1"),
        ({"variation": {"seed": -2, "strength": 0.5}}, "variation.seed", "-1"),
        ({"seed_resize": {"width": 63, "height": 64}}, "seed_resize.width", "0 (off) or at least 64"),
        ({"seed_resize": {"width": 64, "height": -1}}, "seed_resize.height", "0"),
        ({"refiner": {"checkpoint": "x", "switch_at": 1.1}}, "refiner.switch_at", "1"),
        ({"foo": 1}, "foo", "nothing of this name"),
        ({"sd_upscale": {"upscaler": "Lanczos"}}, "sd_upscale", "needs a picture"),
        ({"source": PICTURE, "mask": PICTURE, "sd_upscale": {"upscaler": "x"}}, "sd_upscale", "do not go together"),
        ({"source": PICTURE, "sd_upscale": {"upscaler": "x", "overlap": 257}}, "sd_upscale.overlap", "256"),
        ({"source": PICTURE, "sd_upscale": {"upscaler": "x", "scale_factor": 0.5}}, "sd_upscale.scale_factor", "1"),
        ({"source": PICTURE, "sd_upscale": {"upscaler": "x"}, "hires": {}}, "source", "second pass"),
        ({"steps": "many"}, "steps", "whole number from 1 to 150"),
    ],
)
def test_bad_values_get_a_message_with_field_and_bound(data: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_request(data)
    assert caught.value.field == field
    assert field in caught.value.message
    assert said in caught.value.message
    assert len(caught.value.message) < 400


def test_empty_prompt_is_allowed_and_requests_are_values() -> None:
    request = make_request({"prompt": ""})
    assert request == GenerationRequest()
    assert hash(request) == hash(GenerationRequest())
    with pytest.raises(ValueError, match="frozen"):
        request.steps = 3


def test_parts_that_change_nothing_are_none() -> None:
    idle = {"variation": {"seed": 5, "strength": 0}, "seed_resize": {"width": 512, "height": 0}}
    assert make_request(idle) == GenerationRequest()
    for refiner in ({"checkpoint": " "}, {"checkpoint": "None", "switch_at": 0.5}, {"checkpoint": "x", "switch_at": 1}):
        assert make_request({"refiner": refiner}) == GenerationRequest()
    assert make_request({"sd_upscale": {"upscaler": " ", "overlap": 8}}) == GenerationRequest()
    assert make_request({"hires": {"scale": 1, "denoising_strength": 0}}).hires is None
    assert make_request({"hires": {}}).hires == HiresPass(), "its presence means on"
    assert make_request({"hires": {"scale": 1}}).hires == HiresPass(scale=1), "at the same size it still paints"
    for same in ("", " ", "None", "Use same checkpoint"):
        assert make_request({"hires": {"checkpoint": same}}).hires == HiresPass()
    assert make_request({"hires": {"checkpoint": "user"}}).hires == HiresPass(checkpoint="user")
    assert make_request({"refiner": {"checkpoint": "x"}}).refiner == Refiner(checkpoint="x", switch_at=0.8)
    assert make_request({"variation": {"strength": 0.1}}).variation == Variation(seed=-1, strength=0.1)


@given(
    st.builds(
        GenerationRequest,
        prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50),
        steps=st.integers(1, 150),
        cfg_scale=st.floats(0, 100),
        seed=st.integers(-1, 2**32 - 1),
        sampler_options=st.builds(SamplerOptions, eta=st.none() | st.floats(0, 1)),
    )
)
def test_requests_travel_as_json(request: GenerationRequest) -> None:
    assert GenerationRequest.model_validate_json(request.model_dump_json()) == request


def test_every_field_has_help() -> None:
    for model in (GenerationRequest, SamplerOptions, Variation, SeedResize, Refiner, HiresPass, RunOptions):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
