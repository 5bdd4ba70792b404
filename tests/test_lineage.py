"""What a branch takes of its origin, and what it may not have otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.app import Studio
from studio.errors import InvalidRequest, StudioError, UnknownModel
from studio.infotext import parse_infotext, write_infotext
from studio.schema.parts import MAX_BRANCHES, BranchPoint
from studio.schema.request import GenerationRequest, make_request
from tests.api.stand_in import make_studio

ORIGIN = GenerationRequest(prompt="a {b|c} fox", seed=40, steps=8, width=64, height=96, sampler="Euler", rng="NV")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = make_studio(tmp_path)
    yield made
    made.close()


def text_of(studio: Studio, request: GenerationRequest = ORIGIN) -> str:
    return write_infotext(studio.resolve(request), 0, "1")


def branch(studio: Studio, step: int = 3, **changes: Any) -> GenerationRequest:
    point = BranchPoint(step=step, origin=text_of(studio))
    return studio.default_request(branch=point).model_copy(update=changes)


def test_what_is_not_said_is_the_origins(studio: Studio) -> None:
    asked = branch(studio)
    resolved = studio.resolve(asked)
    assert resolved.branch is not None
    origin = resolved.branch.origin
    assert resolved.model_copy(update={"branch": None}) == origin.model_copy(update={"options": resolved.options})
    assert origin.model_copy(update={"options": resolved.options}) == studio.resolve(
        ORIGIN.model_copy(update={"prompt": origin.positive.text.replace("{", "\\{")})
    ).model_copy(update={"options": resolved.options})
    assert (resolved.branch.step, resolved.branch.text) == (3, text_of(studio))


def test_open_questions_are_the_origins_to_answer(studio: Studio) -> None:
    resolved = studio.resolve(branch(studio, seed=-1, model=None, prompt="x", sampler="DPM++ 2M"))
    assert (resolved.seeds, resolved.model.name, resolved.sampler) == ((40,), "sprout", "DPM++ 2M")


@pytest.mark.parametrize(
    "changes, field, words",
    [
        ({"width": 128}, "width", "width of the picture it leaves, 64, and cannot have 128"),
        ({"height": 128}, "height", "96, and cannot have 128"),
        ({"seed": 41}, "seed", "seed of the picture it leaves, 40, and cannot have 41"),
        ({"rng": "CPU"}, "rng", "NV, and cannot have CPU"),
        ({"model": "oak/old"}, "model", "checkpoint of the picture it leaves, sprout, and cannot have oak/old"),
        ({"batch_size": 2}, "batch_size", "one picture, not 2"),
        ({"batch_count": 3}, "batch_count", "one picture, not 3"),
        ({"sampler": "DPM fast"}, "sampler", "DPM fast chooses its own noise levels"),
        ({"step": 8}, "branch.step", "the picture has 8 steps"),
    ],
)
def test_contradictions_are_named(studio: Studio, changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        studio.resolve(branch(studio, **changes))
    assert caught.value.field == field


def test_a_variation_is_the_origins(studio: Studio) -> None:
    varied = make_request({**ORIGIN.model_dump(), "variation": {"seed": 5, "strength": 0.3}})
    point = BranchPoint(step=2, origin=text_of(studio, varied))
    asked = studio.default_request(branch=point)
    assert studio.resolve(asked).variation == studio.resolve(varied).variation
    with pytest.raises(
        InvalidRequest, match=r"variation of the picture it leaves, seeds 5 strength 0.3, and cannot have none"
    ):
        studio.resolve(asked.model_copy(update={"variation": None}))


@pytest.mark.parametrize(
    "origin, words",
    [
        ("a fox", "no generation parameters"),
        ("a fox\nSteps: 5, Sampler: Euler, Size: 64x64", "names no seed"),
        ("a fox\nSteps: 5, Sampler: Euler, Seed: 1, Model: gone", "branched from: There is no checkpoint named 'gone'"),
        ("<lora:gone:1>\nSteps: 5, Sampler: Euler, Seed: 1", "branched from: There is no LoRA named 'gone'"),
    ],
)
def test_an_origin_that_cannot_be_painted_is_said(studio: Studio, origin: str, words: str) -> None:
    with pytest.raises(StudioError, match=words) as caught:
        studio.resolve(GenerationRequest(branch=BranchPoint(step=2, origin=origin)))
    assert caught.value.field == "branch.origin"


def test_an_origin_may_have_been_restored_with_what_is_not_here(studio: Studio) -> None:
    text = text_of(studio).replace("Steps: ", "Face restoration: GFPGAN, Steps: ")
    asked = studio.default_request(branch=BranchPoint(step=2, origin=text))
    assert asked.face_restoration == "GFPGAN"
    assert studio.resolve(asked.model_copy(update={"face_restoration": ""})).branch is not None
    with pytest.raises(UnknownModel, match="lacks GFPGAN"):
        studio.resolve(asked)


def test_branches_may_be_nested_so_deep_and_no_deeper(studio: Studio) -> None:
    text = text_of(studio)
    for depth in range(MAX_BRANCHES):
        request = studio.default_request(branch=BranchPoint(step=2, origin=text))
        text = text_of(studio, request.model_copy(update={"prompt": f'"depth", {depth}'}))
        assert parse_infotext(text).notes == []
        assert text.count("Branch step") == depth + 1
    with pytest.raises(InvalidRequest, match="8 in a row are possible"):
        studio.default_request(branch=BranchPoint(step=2, origin=text))
    with pytest.raises(InvalidRequest, match="8 in a row are possible"):
        studio.resolve(GenerationRequest(branch=BranchPoint(step=2, origin=text)))


def test_a_branch_without_origin_is_none() -> None:
    assert make_request({"branch": {"step": 5, "origin": " \n"}}).branch is None
    with pytest.raises(InvalidRequest, match=r"branch\.step = 0"):
        make_request({"branch": {"step": 0, "origin": "x"}})
    with pytest.raises(InvalidRequest, match="at most 100,000 characters"):
        make_request({"branch": {"step": 1, "origin": "x" * 100_001}})
