"""The txt2img form: every field of `GenerationRequest` as a component, and the way back.

What a field looks like stands in `studio.ui.looks`; the tabs only say where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from pydantic import ValidationError

from studio.errors import StudioError
from studio.families.faces import RESTORERS
from studio.samplers import SAMPLERS, SCHEDULES
from studio.schema.models import ModelInfo
from studio.schema.parts import BUILT_IN
from studio.schema.request import GenerationRequest, invalid_request, make_request
from studio.ui.fields import Choices, control, shown_number, typed_number
from studio.ui.looks import LOOKS, MAYBE_EMPTY, OPTIONS, PARTS, PICTURED, SWITCH, SWITCHED, SWITCHES
from studio.upscalers import UPSCALERS, on_latents, shown_name

if TYPE_CHECKING:
    from studio.app import Studio

Lookup = Callable[[Any], Any]

SEEDS = ("seed", "variation.seed")
ONE_PICTURE = ("batch_count", "batch_size")


def sampler_choices() -> list[str]:
    """Names of the sampling methods, in the order of the table."""
    return [sampler.name for sampler in SAMPLERS]


def schedule_choices() -> list[str]:
    """Labels of the schedule types, in the order of the table."""
    return [schedule.label for schedule in SCHEDULES]


def model_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """(what is shown, name) of the models that can be used: `name [hash]`, or `name · id` for folders, which have no hash."""
    return [(_shown(model), model.name) for model in models if not model.problem]


def _shown(model: ModelInfo) -> str:
    return f"{model.name} · {model.model_id}" if model.model_id else model.title


def vae_choices(vaes: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`Automatic`, then the VAE files that can be used."""
    return [("Automatic", "Automatic"), *model_choices(vaes)]


def refiner_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`None`, then the checkpoints that can be used."""
    return [("None", ""), *model_choices(models)]


def hypernetwork_choices(hypernetworks: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`None`, then the hypernetworks that can be used."""
    return [("None", ""), *((model.name, model.name) for model in hypernetworks if not model.problem)]


def second_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`Use same checkpoint`, then the checkpoints that can be used."""
    return [("Use same checkpoint", ""), *model_choices(models)]


def upscaler_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """The upscalers without a file, then the models that can be used, by both names where A1111 has another one."""
    named = [(model.name, shown_name(model.name)) for model in models if not model.problem]
    found = [(name if theirs == name.rpartition("/")[2] else f"{name} ({theirs})", name) for name, theirs in named]
    return [*((name, name) for name in UPSCALERS.names()), *found]


def source_upscalers(upscalers: Iterable[str | tuple[str, str]]) -> list[tuple[str, str]]:
    """`Off`, then those of `upscalers` that enlarge pictures."""
    pairs = ((choice, choice) if isinstance(choice, str) else choice for choice in upscalers)
    return [("Off", ""), *(pair for pair in pairs if not on_latents(pair[1]))]


def restorer_choices(studio: Studio) -> list[tuple[str, str]]:
    """`None`, the networks that restore faces, whether their files are there or not, and the older files of each."""
    names = dict.fromkeys((*RESTORERS, *studio.library.face_restorers()))
    return [("None", ""), *((name, name) for name in names)]


def style_choices(studio: Studio) -> list[str]:
    """Names of the styles; none while a file of them is damaged."""
    try:
        return [style.name for style in studio.library.styles.styles()]
    except StudioError:
        return []


def second_vae_choices(vaes: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`Use same VAE`, then those of the first pass."""
    return [("Use same VAE", ""), *vae_choices(vaes)]


def library_choices(studio: Studio) -> dict[str, Choices]:
    """What the library has for each field that names something of it."""
    models, vaes = studio.library.checkpoints(), studio.library.vaes()
    upscalers = upscaler_choices(studio.library.upscalers())
    encoders = [encoder.name for encoder in studio.library.text_encoders() if not encoder.problem]
    return {
        "model": model_choices(models),
        "refiner.checkpoint": refiner_choices(models),
        "hires.checkpoint": second_choices(models),
        "vae": vae_choices(vaes),
        "hires.vae": second_vae_choices(vaes),
        "hires.upscaler": upscalers,
        "sd_upscale.upscaler": source_upscalers(upscalers),
        "text_encoders": encoders,
        "hires.text_encoders": [BUILT_IN, *encoders],
        "hypernetwork": hypernetwork_choices(studio.library.hypernetworks()),
        "face_restoration": restorer_choices(studio),
        "styles": style_choices(studio),
    }


class Form:
    """The components of one page. `place` puts a field where the layout stands; `read` and `fill` map values."""

    def __init__(self) -> None:
        self.controls: dict[str, Component] = {}

    def place(self, name: str, *, choices: Choices | None = None, **layout: Any) -> Component:
        """Build the component of field `name` here. Each field stands on the page once."""
        look = LOOKS[name]
        part, _, bare = name.rpartition(".")
        if name in SWITCHES:
            words = {"info": GenerationRequest.model_fields[part].description, "value": False, "interactive": True}
            self.controls[name] = gr.Checkbox(label=look.label, elem_id=look.elem_id, **{**words, **layout})
            return self.controls[name]
        owner = PARTS[part] if part else GenerationRequest
        self.controls[name] = control(
            owner, bare, label=look.label, elem_id=look.elem_id, choices=choices, **{**look.extra, **layout}
        )
        return self.controls[name]

    def read(self, values: Mapping[Component, Any]) -> GenerationRequest:
        """The request the form shows. Raises `InvalidRequest` naming the first bad field, its value and what is allowed."""
        data: dict[str, Any] = {part: {} for part in PARTS}
        for name, component in self.controls.items():
            value = values.get(component)
            if name in SEEDS and value is None:
                value = -1
            if name in MAYBE_EMPTY:
                value = typed_number(value)
            part, _, bare = name.rpartition(".")
            (data[part] if part else data)[bare] = value
        for owner, bare in ((data, "styles"), (data, "text_encoders"), (data["hires"], "text_encoders")):
            owner[bare] = owner.get(bare) or ()
        for part in SWITCHED:
            data[part] = data[part] if data[part].pop(SWITCH, False) else None
        there = True
        for part in PICTURED:
            there = there and bool(data[part].get("image"))
            data[part] = data[part] if there else None
        if data["source"] is None:
            data["sd_upscale"] = None
        return make_request(data)

    def fill(self, request: Mapping[str, Any]) -> dict[Component, Any]:
        """Updates that show `request`, a whole request or a part of one; fields it does not name stay as they are."""
        return {
            self.controls[name]: _update(name, value) for name, value in flat(request).items() if name in self.controls
        }


def flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{"sampler_options": {"eta": 1}}` as `{"sampler_options.eta": 1}`; all other keys as they are.

    An optional part that is None is off: its fields have their defaults, or are left alone where it has a switch.
    """
    result: dict[str, Any] = {}
    for key, value in request.items():
        if key not in PARTS:
            result[key] = value
            continue
        off = value is None and GenerationRequest.model_fields[key].default is None
        if key in SWITCHED:
            value = {SWITCH: False} if off else {SWITCH: True, **value} if isinstance(value, Mapping) else value
            off = False
        nested = PARTS[key]().model_dump() if off else value
        if isinstance(nested, Mapping):
            result.update({f"{key}.{name}": inner for name, inner in nested.items()})
    return result


def possible(request: Mapping[str, Any], lookups: Mapping[str, Lookup]) -> tuple[dict[str, Any], list[str]]:
    """The part of `request` this form can show, and a note for each value that it cannot.

    `request` comes from a picture, a saved form or another page: anything may be in it. `lookups` has, for each field
    that names something, the function that gives its name on this form and raises `StudioError` where there is no such
    thing. A dotted field then gets its default, any other is left as it is on the form.
    """
    data = _known_fields(request)
    off = {part: data.pop(part) for part in SWITCHED if _is_off(request.get(part))}
    whole, notes = _validated(data)
    shown = {name: whole[name] for name in data if whole[name] is not None}
    for part, fields in off.items():
        alone, more = _validated({part: fields})  # what is off contradicts nothing that is on
        notes += more
        if alone[part] is not None:
            shown[part] = {**alone[part], SWITCH: False}
    for name, look_up in lookups.items():
        part, _, bare = name.rpartition(".")
        if (part or bare) not in shown:
            continue
        owner = shown
        if part:
            owner = shown[part] = dict(shown[part])
        try:
            owner[bare] = look_up(owner[bare])
        except StudioError as error:
            del owner[bare]
            owner |= {bare: PARTS[part].model_fields[bare].default} if part else {}
            notes.append(f"{error.message} The picture will not come out the same.")
    return shown, notes


def complete(request: Mapping[str, Any]) -> dict[str, Any]:
    """`request` with every field that changes pixels, so that Generate paints exactly this one picture again.

    What a picture does not tell has its default; checkpoint and size alone stay as they are. A text without parameters
    says nothing about the rest of the form, and is given back as it is.
    """
    if "steps" not in request:
        return dict(request)
    blank = GenerationRequest().model_dump(exclude={"model", "width", "height"})
    options = {**blank[OPTIONS], **(request.get(OPTIONS) or {})}
    return {**blank, **request, OPTIONS: options, **dict.fromkeys(ONE_PICTURE, 1)}


def _is_off(part: Any) -> bool:
    """Whether this value of a part with a switch is one that is switched off."""
    return isinstance(part, Mapping) and part.get(SWITCH) is False


def _known_fields(request: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in request.items() if key in GenerationRequest.model_fields}
    for part in PARTS.keys() & data.keys():
        if part in SWITCHED and not isinstance(data[part], Mapping):
            data[part] = None
            continue
        nested = data[part] if isinstance(data[part], Mapping) else {}
        data[part] = {key: value for key, value in nested.items() if key in PARTS[part].model_fields}
    return data


def _validated(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A whole request with `data` in it, and a note for each value that had to be dropped (from `data` too)."""
    notes: list[str] = []
    while True:
        try:
            return GenerationRequest.model_validate(data).model_dump(), notes
        except ValidationError as error:
            notes.append(f"Not taken over: {invalid_request(error, GenerationRequest).message}")
            _drop(data, error.errors(include_url=False)[0]["loc"])


def _drop(data: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Take the value at `location` out of `data`."""
    first = str(location[0]) if location else ""
    if first in PARTS and len(location) > 1:
        data[first].pop(str(location[1]), None)
    else:
        data.pop(first, None)


def _update(name: str, value: Any) -> Any:
    """A component update; a slider that ends below its field's bound grows to the value it must show."""
    if name in MAYBE_EMPTY:
        return gr.update(value=shown_number(value))
    if isinstance(value, tuple):
        return gr.update(value=list(value))
    soft = LOOKS[name].extra.get("soft_maximum")
    if soft is not None and isinstance(value, (int, float)):
        return gr.update(value=value, maximum=max(soft, value))
    return gr.update(value=value)
