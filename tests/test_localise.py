"""Styles that are merged into the prompts of both passes are taken out of both, or of neither."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from studio.errors import UnknownModel
from studio.library import Library
from studio.localise import in_local_words
from studio.prompt import Style


def nothing(name: str) -> Any:
    raise UnknownModel.of("checkpoint", name, [], field="model")


STYLES = [Style("ink", "ink drawing of {prompt}", ""), Style("photo", "35mm", "blurry")]
SHELF = cast(Library, SimpleNamespace(styles=SimpleNamespace(styles=lambda: STYLES), checkpoint=nothing, vae=nothing))


def test_checkpoints_of_parts_become_names_of_the_library() -> None:
    known = SimpleNamespace(**{**vars(SHELF), "checkpoint": lambda name: SimpleNamespace(name=f"sub/{name[:3]}")})
    request = {"refiner": {"checkpoint": "oak [0123456789]"}, "hires": {"checkpoint": "elm [9876543210]", "steps": 3}}
    found = in_local_words(request, cast(Library, known))
    assert found == {"refiner": {"checkpoint": "sub/oak"}, "hires": {"checkpoint": "sub/elm", "steps": 3}}
    assert in_local_words(request, SHELF) == request


def words(first: str, negative: str = "", **hires: str) -> dict[str, Any]:
    request: dict[str, Any] = {"prompt": first, "negative_prompt": negative}
    return in_local_words(request | ({"hires": {"steps": 5, **hires}} if hires else {}), SHELF)


def test_upscalers_become_names_of_the_library() -> None:
    known = SimpleNamespace(**{**vars(SHELF), "upscaler": lambda name: SimpleNamespace(name="sub/x4", problem=None)})
    for theirs, ours in (("R-ESRGAN 4x+", "sub/x4"), ("lanczos", "lanczos")):
        found = in_local_words({"hires": {"upscaler": theirs}}, cast(Library, known))
        assert found["hires"]["upscaler"].casefold() == ours


def test_without_prompts_of_its_own_the_second_pass_is_left_alone() -> None:
    found = words("ink drawing of a fox", scale="2")
    assert (found["prompt"], found["styles"]) == ("a fox", ("ink",))
    assert found["hires"] == {"steps": 5, "scale": "2"}


def test_they_are_taken_out_of_both() -> None:
    found = words("ink drawing of a fox", prompt="ink drawing of an owl")
    assert (found["prompt"], found["styles"]) == ("a fox", ("ink",))
    assert found["hires"] == {"steps": 5, "prompt": "an owl"}
    both = words("a fox, 35mm", "ugly, blurry", negative_prompt="noise, blurry")
    assert (both["negative_prompt"], both["styles"]) == ("ugly", ("photo",))
    assert both["hires"]["negative_prompt"] == "noise"


@pytest.mark.parametrize("second", ["an owl", "an owl, 35mm", "ink drawing of "])
def test_or_of_neither(second: str) -> None:
    found = words("ink drawing of a fox", prompt=second)
    assert (found["prompt"], found.get("styles")) == ("ink drawing of a fox", None)
    assert found["hires"]["prompt"] == second


def test_a_style_of_the_second_pass_only_is_none() -> None:
    found = words("a fox", prompt="ink drawing of an owl")
    assert "styles" not in found
    assert found["hires"]["prompt"] == "ink drawing of an owl"
