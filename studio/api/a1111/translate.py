"""From A1111's fields to a request of ours: what txt2img and img2img have in common. What only one has stands in its own file.

What would change the pixels and is not built is refused by name; what changes nothing is ignored with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any

from studio.api.a1111.bodies import PaintBody
from studio.api.a1111.names import (
    ETA_OF_OTHERS,
    ETA_OF_TIMESTEPS,
    FACE_RESTORER,
    FACES,
    FIELDS,
    KNOWN_OVERRIDES,
    MODULES,
    OVERRIDES,
    PART_FIELDS,
    PART_OVERRIDES,
    PICTURE_OVERRIDES,
    SAMPLER_FIELDS,
    SAMPLER_OVERRIDES,
    in_their_words,
)
from studio.api.a1111.scripts import is_plot, plot_call
from studio.api.a1111.upscale_script import is_sd_upscale
from studio.errors import InvalidRequest, UnknownName
from studio.samplers.table import AUTOMATIC, find_sampler, split_legacy_sampler_name
from studio.schema.request import GenerationRequest, RunOptions, make_request


@dataclass(frozen=True)
class Context:
    """What a body is understood with.

    `defaults` give what A1111 keeps in its settings: model, VAE, clip skip, emphasis, noise source, CodeFormer's weight; `face_restorer` is the
    network that `restore_faces` means.
    """

    defaults: GenerationRequest
    read_infotext: Callable[[str], dict[str, Any]]
    preview_every: int
    sort: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Puts what Forge lists as modules where it belongs; see `studio.encoders.sorted_modules`."""
    face_restorer: str = "CodeFormer"


@dataclass(frozen=True)
class Said:
    """A body's fields and `override_settings`, without those that are null; `data` are the request's fields known so far."""

    given: Mapping[str, Any]
    overrides: Mapping[str, Any]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Order:
    """A body understood. `persistent` are settings to keep afterwards; `warnings` what was ignored.

    `sheet_alone` means that the answer has the sheet of a plot without its pictures.
    """

    request: GenerationRequest
    options: RunOptions
    persistent: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    sheet_alone: bool = False


Refusal = tuple[str, Callable[[Any], bool], str]
"""A field, whether its value asks for anything, and why that is not done."""


@dataclass(frozen=True)
class Dialect:
    """What one of the two routes has of its own.

    `parts` gives fields of the request, and warnings, and raises `InvalidRequest` naming A1111's field. `axes` are those of a plot,
    in the order of A1111's numbers.
    """

    refused: tuple[Refusal, ...]
    axes: tuple[str, ...]
    parts: Callable[[Said], tuple[dict[str, Any], list[str]]]


def named(value: Any) -> bool:
    """Whether a name says something: A1111's name of nothing is "None"."""
    return isinstance(value, str) and value not in ("", "None")


_REFUSED: tuple[Refusal, ...] = (
    (
        "script_name",
        lambda name: named(name) and not is_plot(name) and not is_sd_upscale(name),
        "the scripts that are available in this version are X/Y/Z plot and, in img2img, SD upscale. Leave the field out.",
    ),
    ("disable_extra_networks", bool, "extra networks cannot be turned off; leave the <lora:…> tags out of the prompt."),
)


def translate(body: PaintBody, context: Context, dialect: Dialect) -> Order:
    """Understand `body`.

    Raises `InvalidRequest` naming A1111's field, for values that are not possible and for what is not built.
    """
    rows = (*_REFUSED, *dialect.refused)
    _refuse(body, rows)
    warnings = _warnings(body, {name for name, _, _ in rows})
    settings = set(OVERRIDES.values())
    data: dict[str, Any] = context.defaults.model_dump(include=settings)
    data |= {"sampler": "Euler", "schedule": AUTOMATIC, "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512}
    if text := body.infotext or (body.branch or {}).get("origin"):
        data |= context.read_infotext(str(text))
    given = {name: value for name in body.model_fields_set if (value := getattr(body, name)) is not None}
    data |= {ours: given[theirs] for theirs, ours in FIELDS.items() if theirs in given}
    data["styles"] = [name for name in data.get("styles", ()) if named(name)]
    data |= _sampler(given, data)
    overrides = {key: value for key, value in (body.override_settings or {}).items() if value is not None}
    data |= _parts(given, overrides, data)
    for key, ours in (OVERRIDES | PICTURE_OVERRIDES).items():
        if overrides.get(key) not in (None, ""):
            data[ours] = overrides[key]
    if overrides.get(MODULES):
        data["text_encoders"] = file_names(overrides[MODULES])
    data["face_restoration"] = _face_restorer(given, overrides, data.get("face_restoration", ""), context)
    data["sampler_options"] = _sampler_options(given, overrides, data)
    parts, more = dialect.parts(Said(given, overrides, data))
    call = plot_call(body.script_args or (), dialect.axes) if is_plot(body.script_name) else None
    if call:
        parts, more = {**parts, "plot": call.plot}, more + call.warnings
    unknown = sorted(overrides.keys() - KNOWN_OVERRIDES)
    warnings += [f"override_settings.{key} is not known here and was ignored." for key in unknown] + more
    try:
        request = make_request(context.sort({**data, **parts}))
    except InvalidRequest as error:
        raise in_their_words(error) from None
    kept = {} if body.override_settings_restore_afterwards in (True, None) else overrides
    return Order(
        request=request,
        options=_options(body, context.preview_every),
        persistent={key: value for key, value in kept.items() if key in (*OVERRIDES, FACE_RESTORER)},
        warnings=warnings,
        sheet_alone=call is not None and request.plot is not None and not call.with_pictures,
    )


def file_names(files: Any) -> list[str]:
    """The names of Forge's modules, which it lists with or without their folders. Raises `InvalidRequest`."""
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise InvalidRequest(f"override_settings.{MODULES}: {files!r} is no list of names.", field=MODULES)
    said = [file for file in files if not file.casefold().startswith("use same")]
    return [
        PureWindowsPath(file).name if PureWindowsPath(file).is_absolute() or file[:1] == "/" else file for file in said
    ]


def split_sampler(name: str) -> tuple[str, str | None]:
    """A name from before A1111 1.9 ("DPM++ 2M Karras") in two; the schedule is None where the name carries none."""
    head, tail = split_legacy_sampler_name(name)
    return (name, None) if tail is None or _is_sampler(name) else (head, tail)


def _refuse(body: PaintBody, rows: tuple[Refusal, ...]) -> None:
    values = {**(body.model_extra or {}), **{name: getattr(body, name) for name in type(body).model_fields}}
    for name, asks, why in rows:
        if asks(values.get(name)):
            raise InvalidRequest(f"{name}: {why}", field=name)


def _warnings(body: PaintBody, checked: set[str]) -> list[str]:
    unknown = [
        f"{name} is not known here and was ignored." for name in sorted(body.model_extra or {}) if name not in checked
    ]
    scripts = [
        f"The always-on script {name!r} is not installed and was ignored." for name in body.alwayson_scripts or {}
    ]
    return unknown + scripts


def _options(body: PaintBody, preview_every: int) -> RunOptions:
    saving = bool(body.save_images) and not body.do_not_save_samples
    grid = bool(body.save_images) and not body.do_not_save_grid
    return RunOptions(save=saving, grid=grid, preview_every=preview_every, task_id=body.force_task_id or "")


def _face_restorer(given: dict[str, Any], overrides: dict[str, Any], told: str, context: Context) -> str:
    """The network that restores faces, "" for none; `told` is that of an infotext."""
    chosen = str(overrides.get(FACE_RESTORER) or told or context.face_restorer)
    return chosen if given.get("restore_faces", overrides.get(FACES, bool(told))) else ""


def _sampler_options(given: dict[str, Any], overrides: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    options = dict(data.get("sampler_options", {}))
    options |= {ours: given[theirs] for theirs, ours in SAMPLER_FIELDS.items() if theirs in given}
    options |= {ours: overrides[key] for key, ours in SAMPLER_OVERRIDES.items() if key in overrides}
    if "eta" in given:
        return {**options, "eta": given["eta"]}  # the one field that A1111 looks at before its settings
    setting = ETA_OF_TIMESTEPS if _uses_timesteps(data) else ETA_OF_OTHERS
    return {**options, "eta": overrides[setting]} if setting in overrides else options


def _uses_timesteps(data: dict[str, Any]) -> bool:
    try:
        return find_sampler(str(data["sampler"])).timesteps
    except UnknownName:
        return False  # the request will be refused


def _parts(given: dict[str, Any], overrides: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The optional parts, over those in `data`. A size below 0 is none, as 0 is; a refiner without a switch begins at once."""
    parts: dict[str, dict[str, Any]] = {}
    said = [(ours, given[theirs]) for theirs, ours in PART_FIELDS.items() if theirs in given]
    said += [(ours, overrides[theirs]) for theirs, ours in PART_OVERRIDES.items() if theirs in overrides]
    for ours, value in said:
        part, _, name = ours.partition(".")
        value = max(value, 0) if part == "seed_resize" else value
        parts.setdefault(part, dict(data.get(part) or {}))[name] = value
    if "refiner" in parts:
        parts["refiner"].setdefault("switch_at", 0.0)
    return parts


def _is_sampler(name: str) -> bool:
    try:
        find_sampler(name)
    except UnknownName:
        return False
    return True


def _sampler(given: dict[str, Any], data: dict[str, Any]) -> dict[str, str]:
    name = given.get("sampler_name") or given.get("sampler_index") or data["sampler"]
    schedule = given.get("scheduler") or data["schedule"]
    name, carried = split_sampler(name)
    return {"sampler": name, "schedule": carried if carried and schedule == AUTOMATIC else schedule}
