"""From a pydantic field to a Gradio component: bounds, default and help text come from the field, nothing is repeated.

`read_field` says what a field allows; `control` builds the component for it.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel

Kind = Literal["text", "integer", "decimal", "switch", "choice", "names"]
Choices = Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class FieldFacts:
    """What a field allows. `minimum` and `maximum` are None where it has no bound, `choices` empty where any text goes."""

    kind: Kind
    default: Any
    help: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


def read_field(model: type[BaseModel], name: str) -> FieldFacts:
    """The facts of one field. Raises KeyError for an unknown field and TypeError for one that no component can show."""
    field = model.model_fields[name]
    bare = _bare(field.annotation)
    choices = tuple(str(choice) for choice in get_args(bare)) if get_origin(bare) is Literal else ()
    return FieldFacts(
        kind="choice" if choices else _kind(bare, name),
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
    by = step if step is not None else (1 if facts.kind == "integer" else 0.05)
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
    """The bound as a plain number; whole ones stay integers, so that a slider shows 20 and not 20.0."""
    found = [getattr(rule, name) for rule in rules if getattr(rule, name, None) is not None]
    if not found:
        return None
    value = float(found[0])
    return int(value) if value.is_integer() else value
