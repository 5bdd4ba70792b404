"""What is said of a refused value: its place, the value, what is allowed; never an expression or a novel."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from studio.errors import SettingsError
from studio.schema.complaint import LONGEST, Complaint, first_complaint, matching
from studio.schema.training import parse_training_config


class Inner(BaseModel):
    size: int = Field(8, ge=1, le=9)


class Outer(BaseModel):
    inner: Inner = Inner()
    name: Annotated[str, matching("[a-z]{1,3}", "a name has one to three small letters")] = "a"


def complaint(**values: Any) -> Complaint:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return first_complaint(caught.value)


def test_place_value_and_bounds() -> None:
    said = complaint(inner={"size": 0})
    assert said.field == "inner.size"
    assert said.sentence("all") == "inner.size = 0 is not possible: should be greater than or equal to 1."


def test_what_is_no_number_is_said_once() -> None:
    assert (
        complaint(inner={"size": "abc"}).sentence("all")
        == "inner.size = 'abc' is not possible: should be a valid integer."
    )


@pytest.mark.parametrize("name", ["", "abcd", "A", "a\n", "a b"])
def test_a_pattern_is_said_in_words(name: str) -> None:
    assert complaint(name=name).sentence("all") == (
        f"name = {name!r} is not possible: a name has one to three small letters."
    )


def test_a_long_value_is_cut() -> None:
    said = complaint(name="x" * 1000)
    assert len(said.value) < LONGEST
    assert said.value.endswith("…")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"name": "My run"}, "name = 'My run' is not possible: a run's name has small letters"),
        ({"method": {"kind": "lora", "data": {"path": "x"}, "output": {"name": "../a"}}}, "a file's name has letters"),
    ],
)
def test_names_in_a_recipe(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_training_config({"name": "run", "method": {"kind": "judge"}, **changes}, "a.toml")
    assert words in str(caught.value)
    assert "[" not in str(caught.value)


def test_the_whole_may_be_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate([1])
    assert first_complaint(caught.value).sentence("request").startswith("request = [1] is not possible: ")
