"""What a person is told of a value that a schema refuses: the value, and what is allowed, in words that are no Python."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from studio.errors import near_matches

LONGEST = 80
"""Characters of a refused value that are repeated."""


class Complaint(NamedTuple):
    """`field` is the path of the refused value, with dots, empty for the whole; `value` is empty when it is not there."""

    field: str
    value: str
    reason: str

    def sentence(self, whole: str) -> str:
        """`steps = 0 is not possible: should be from 1 to 150.`; `whole` stands for an empty field."""
        name = self.field or whole
        return f"{name} = {self.value} is not possible: {self.reason}." if self.value else f"{name} {self.reason}."


def first_complaint(error: ValidationError, model: type[BaseModel]) -> Complaint:
    """The first of what pydantic found when it read a `model`."""
    return complaint(error.errors(include_url=False)[0], model)


def complaint(found: Mapping[str, Any], model: Any) -> Complaint:
    """One of pydantic's errors about a value that was to be a `model` (a model, or any other annotation)."""
    kind, place, value = str(found["type"]), tuple(found["loc"]), _shown(found.get("input"))
    facts = found.get("ctx", {})
    if kind.startswith("union_tag"):
        place += (facts["discriminator"].strip("'()"),)
        value = _shown(facts.get("tag"))
    if kind in _MISSING:
        return Complaint(_path(place), "", "is missing")
    return Complaint(_path(place), value, _reason(found, model, place))


def matching(pattern: str, words: str) -> AfterValidator:
    """Text that is `pattern` from end to end; `words` say it to a person, as pydantic would show the expression."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _path(place: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in place)


def _shown(value: Any) -> str:
    words: dict[Any, str] = {None: "nothing", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "…"


def _reason(found: Mapping[str, Any], model: Any, place: Sequence[int | str]) -> str:
    kind, facts = str(found["type"]), found.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_name(model, place)
    if kind in _WORDS:
        return _WORDS[kind](facts)
    of = {"int": "a whole number", "float": "a number"}.get(kind.split("_")[0], "")
    if of or kind in _BOUNDS or kind == "finite_number":
        return f"should be {_range(_field(model, place), of, kind, facts)}"
    reason = str(found["msg"]).removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{reason[:1].lower()}{reason[1:]}"


_MISSING = ("missing", "union_tag_not_found")
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **dict.fromkeys(("bool_parsing", "bool_type"), lambda facts: "should be true or false"),
    **dict.fromkeys(("string_type", "string_sub_type"), lambda facts: "should be text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), lambda facts: "should be a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type"), lambda facts: "should be a group of named values"
    ),
    "string_too_long": lambda facts: f"should have at most {facts['max_length']:,} characters",
    "string_too_short": lambda facts: f"should have at least {facts['min_length']:,} characters",
    "too_long": lambda facts: f"should have at most {facts['max_length']:,} entries",
    "too_short": lambda facts: f"should have at least {facts['min_length']:,} entries",
    "union_tag_invalid": lambda facts: f"should be one of {facts['expected_tags']}",
}


def _range(field: FieldInfo | None, of: str, kind: str, facts: Mapping[str, Any]) -> str:
    """`a whole number from 1 to 150`: what the field allows, or of that what the error knows."""
    bounds = {} if field is None else {name: value for m in field.metadata for name, value in _marks(m)}
    if "ge" in bounds and "le" in bounds:
        return f"{of} from {_number(bounds['ge'])} to {_number(bounds['le'])}".strip()
    if "gt" in bounds and "le" in bounds:
        return f"{of} above {_number(bounds['gt'])}, at most {_number(bounds['le'])}".strip()
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {_number(facts[name])}"
    return of or "a number that is not infinite"


def _number(value: float) -> str:
    return f"{value:,.10g}" if value >= 100_000 else f"{value:.10g}"


def _marks(metadata: Any) -> list[tuple[str, float]]:
    return [
        (name, value) for name in ("ge", "gt", "le") if isinstance(value := getattr(metadata, name, None), int | float)
    ]


def _unknown_name(model: Any, place: Sequence[int | str]) -> str:
    """There is no such field; names that look like it are given."""
    parent = model
    for part in place[:-1]:
        parent = _inner(parent, part)
    names = [name for each in _models(parent) for name in each.model_fields]
    near = near_matches(str(place[-1]), names, 2)
    return "there is nothing of this name" + (f"; perhaps {' or '.join(repr(name) for name in near)}" if near else "")


def _field(model: Any, place: Sequence[int | str]) -> FieldInfo | None:
    """The field at that place, where the way there leads through models, lists and unions of models."""
    for part in place[:-1]:
        model = _inner(model, part)
    return next((each.model_fields[str(place[-1])] for each in _models(model) if place[-1] in each.model_fields), None)


def _inner(kind: Any, part: int | str) -> Any:
    """The type of a list's entry, of a model's field, or that one of a union of models whose `kind` is `part`."""
    if isinstance(part, int):
        return next(iter(typing.get_args(kind)), None)
    models = _models(kind)
    fields = [each.model_fields[part] for each in models if part in each.model_fields]
    if fields:
        return fields[0].annotation
    return next((each for each in models if any(field.default == part for field in each.model_fields.values())), kind)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The models of an annotation: itself, or those of a union, optional ones and marked ones included."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in typing.get_args(kind) for model in _models(part)]
