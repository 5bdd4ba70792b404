"""What is said of a refused value: its place, the value, what is allowed; never an expression or a novel."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import SettingsError
from studio.schema.complaint import LONGEST, Complaint, first_complaint, matching
from studio.schema.training import parse_training_config


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(8, ge=1, le=9)


class Small(BaseModel):
    kind: Literal["small"] = "small"
    count: int = Field(1, ge=1, le=5)


class Large(BaseModel):
    kind: Literal["large"] = "large"
    count: int = Field(10, ge=10, le=50)


class Needy(BaseModel):
    it: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner = Inner()
    many: tuple[Inner, ...] = Field((), max_length=2)
    rate: float = Field(0.1, gt=0, le=0.5, allow_inf_nan=False)
    free: float = Field(0, allow_inf_nan=False)
    least: int = Field(100_000, ge=100_000)
    long: str = Field("", max_length=5)
    on: bool = False
    of: Small | Large = Field(Small(), discriminator="kind")
    needy: Needy | None = None
    name: Annotated[str, matching("[a-z]{1,3}", "a name has one to three small letters")] = "a"


def complaint(**values: Any) -> Complaint:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return first_complaint(caught.value, Outer)


def test_place_value_and_bounds() -> None:
    said = complaint(inner={"size": 0})
    assert said.field == "inner.size"
    assert said.sentence("all") == "inner.size = 0 is not possible: should be from 1 to 9."


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"inner": {"size": "abc"}}, "inner.size = 'abc' is not possible: should be a whole number from 1 to 9."),
        ({"inner": {"size": None}}, "inner.size = nothing is not possible: should be a whole number from 1 to 9."),
        ({"inner": {"size": 2.5}}, "inner.size = 2.5 is not possible: should be a whole number from 1 to 9."),
        ({"inner": 3}, "inner = 3 is not possible: should be a group of named values."),
        ({"inner": {"siz": 3}}, "inner.siz = 3 is not possible: there is nothing of this name; perhaps 'size'."),
        ({"colour": 3}, "colour = 3 is not possible: there is nothing of this name."),
        ({"many": [{"size": 10}]}, "many.0.size = 10 is not possible: should be from 1 to 9."),
        ({"many": [{}] * 3}, "many = [{}, {}, {}] is not possible: should have at most 2 entries."),
        ({"many": True}, "many = true is not possible: should be a list."),
        ({"rate": 0}, "rate = 0 is not possible: should be above 0, at most 0.5."),
        ({"rate": float("inf")}, "rate = inf is not possible: should be above 0, at most 0.5."),
        ({"free": float("nan")}, "free = nan is not possible: should be a number that is not infinite."),
        ({"free": "x"}, "free = 'x' is not possible: should be a number."),
        ({"least": -1}, "least = -1 is not possible: should be at least 100,000."),
        ({"name": 3}, "name = 3 is not possible: should be text."),
        ({"long": "abcdef"}, "long = 'abcdef' is not possible: should have at most 5 characters."),
        ({"on": "perhaps"}, "on = 'perhaps' is not possible: should be true or false."),
        ({"of": {"kind": "small", "count": 9}}, "of.small.count = 9 is not possible: should be from 1 to 5."),
        ({"of": {"kind": "large", "count": 9}}, "of.large.count = 9 is not possible: should be from 10 to 50."),
        ({"of": {"kind": "tiny"}}, "of.kind = 'tiny' is not possible: should be one of 'small', 'large'."),
        ({"of": {}}, "of.kind is missing."),
        ({"needy": {}}, "needy.it is missing."),
    ],
)
def test_what_is_allowed_is_said_in_words_that_are_no_python(values: dict[str, Any], sentence: str) -> None:
    assert complaint(**values).sentence("all") == sentence


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
    said = first_complaint(caught.value, Outer).sentence("request")
    assert said == "request = [1] is not possible: should be a group of named values."
