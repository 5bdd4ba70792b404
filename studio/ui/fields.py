"""From a pydantic field to a Gradio component: bounds, default and help text come from the field, nothing is repeated.

`read_field` says what a field allows; `control` builds the component for it. `typed_number` and `shown_number` are the way
back and forth for numbers that may be empty.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

Kind = Literal["text", "integer", "decimal", "switch", "choice", "names"]
Choices = Sequence[str | tuple[str, str]]

_DECIMAL = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)")


@dataclass(frozen=True)
class FieldFacts:
    """What a field allows. `minimum` and `maximum` are None where it has no bound, `choices` empty where any text goes."""

    kind: Kind
    optional: bool
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]

    @property
    def number_or_empty(self) -> bool:
        """Whether it is a number that may be left out."""
        return self.optional and self.kind in ("integer", "decimal")

    @property
    def step(self) -> float:
        """How far one press of an arrow key goes, where nothing else is said."""
        return 1 if self.kind == "integer" else 0.05


def read_field(model: type[BaseModel], name: str) -> FieldFacts:
    """The facts of one field. Raises KeyError for an unknown field and TypeError for one that no component can show."""
    field = model.model_fields[name]
    bare = _bare(field.annotation)
    choices = tuple(str(choice) for choice in get_args(bare)) if get_origin(bare) is Literal else ()
    return FieldFacts(
        kind="choice" if choices else _kind(bare, name),
        optional=type(None) in get_args(field.annotation),
        default=field.get_default(call_default_factory=True),
        help=field.description or "",
        minimum=_bound(field.metadata, "ge"),
        maximum=_bound(field.metadata, "le"),
        choices=choices,
    )


def control(
    model: type[BaseModel],
    name: str,
    *,
    label: str,
    elem_id: str,
    slider: bool = False,
    step: float | None = None,
    soft_maximum: float | None = None,
    choices: Choices | None = None,
    lines: int = 1,
    **layout: Any,
) -> Component:
    """The component of `model.name`, already filled with the field's default.

    `slider` shows a number as a slider (the field must have both bounds); `soft_maximum` ends the slider earlier than
    the field does. `choices` turns a text field into a list, and is what a field of several names offers. `layout` goes to the component as it is (scale, value ...).
    A number that may be empty is a text field: Gradio's number field is 0 while it is drawn, and could be sent as that.
    """
    facts = read_field(model, name)
    common: dict[str, Any] = {"label": label, "info": facts.help, "elem_id": elem_id, "value": facts.default, **layout}
    common["interactive"] = True
    listed = choices if choices is not None else facts.choices
    if facts.kind == "names":
        return gr.Dropdown(
            choices=list(listed), multiselect=True, filterable=True, **{**common, "value": [*common["value"]]}
        )
    if facts.kind == "switch":
        return gr.Checkbox(**common)
    if listed or choices is not None:
        return _list(listed, common)
    if facts.kind == "text":
        return gr.Textbox(lines=lines, max_lines=max(lines, 12), **common)
    precision = 0 if facts.kind == "integer" else None
    by = step if step is not None else facts.step
    if facts.number_or_empty:
        if slider:
            raise TypeError(f"{model.__name__}.{name} may be empty: it cannot be a slider")
        text = {"value": shown_number(common["value"]), "elem_classes": ["ls-number"]}
        return gr.Textbox(lines=1, max_lines=1, **{**common, **text})
    if slider:
        top = facts.maximum if soft_maximum is None else soft_maximum
        if facts.minimum is None or top is None:
            raise TypeError(f"{model.__name__}.{name} has no bounds: it cannot be a slider")
        return gr.Slider(minimum=facts.minimum, maximum=top, step=by, precision=precision, **common)
    return gr.Number(minimum=facts.minimum, maximum=facts.maximum, step=by, precision=precision, **common)


def _list(choices: Choices, common: dict[str, Any]) -> gr.Dropdown:
    """A drop-down; typing searches a long one. A value that is not in the list is left open, unless any is allowed."""
    free = bool(common.get("allow_custom_value"))
    values = [choice if isinstance(choice, str) else choice[1] for choice in choices]
    value = common["value"] if free or common["value"] in values else None
    return gr.Dropdown(choices=list(choices), filterable=free or len(choices) > 8, **{**common, "value": value})


def _bare(annotation: Any) -> Any:
    """The annotation without `| None` and without `Annotated`."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [part for part in get_args(annotation) if part is not type(None)]
        return _bare(kinds[0]) if len(kinds) == 1 else annotation
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    return annotation


def _kind(bare: Any, name: str) -> Kind:
    if get_origin(bare) is tuple and _bare(get_args(bare)[0]) is str:
        return "names"
    kinds: dict[Any, Kind] = {bool: "switch", int: "integer", float: "decimal", str: "text"}
    if bare not in kinds:
        raise TypeError(f"field {name!r} of type {bare!r} cannot be shown as one component")
    return kinds[bare]


def _bound(rules: Sequence[Any], name: str) -> float | None:
    """The bound as a plain number."""
    found = [getattr(rule, name) for rule in rules if getattr(rule, name, None) is not None]
    return _plain(found[0]) if found else None


def typed_number(value: Any) -> Any:
    """What a field that may be empty holds: None for nothing, a number with point or comma, other text as it is.

    The request reads such text, or refuses it. `typedNumber` of `assets/numbers.js` does the same.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    number = float(text.replace(",", ".")) if _DECIMAL.fullmatch(text) else math.nan
    return _plain(number) if math.isfinite(number) else text


def shown_number(value: float | None) -> str:
    """The text that shows a number in a field that may be empty; `typed_number` reads it."""
    return "" if value is None else str(_plain(value))


def _plain(value: float) -> float:
    """Whole numbers as integers, so that 20 is shown and not 20.0."""
    return int(value) if float(value).is_integer() else value
