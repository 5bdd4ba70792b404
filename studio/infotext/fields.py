"""From parameters to fields of `GenerationRequest`: types, bounds, names, and a note about everything that does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from studio.errors import UnknownName
from studio.infotext.hires import has_hires, hires_names, upscaler_name
from studio.infotext.keys import (
    CHOICE_FIELDS,
    HIRES_NAMES,
    MASK_KEYS,
    NUMBER_FIELDS,
    OPTION_FIELDS,
    PART_FIELDS,
    PROGRAM,
    SOURCE_KEYS,
    TEMPLATE_KEYS,
    TITLE_KEYS,
)
from studio.infotext.modules import FIRST, hires_modules, module_names
from studio.infotext.plot import OPTION_KEYS, plot_fields
from studio.infotext.source import NOT_MASKED, PICTURE_KEYS, picture_is_missing
from studio.infotext.unused import shortened, unused_notes
from studio.infotext.upscale import UPSCALE_KEYS, UPSCALER_KEY
from studio.samplers.table import (
    AUTOMATIC,
    SamplerSpec,
    ScheduleSpec,
    find_sampler,
    find_schedule,
    resolve_schedule,
    split_legacy_sampler_name,
)
from studio.schema.parts import BranchPoint, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest, invalid_request
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale

DEFAULTS: dict[str, Any] = {"clip_skip": 1, "rng": "GPU", "emphasis": "Original", "vae": "Automatic"}
"""What a text means that does not name these."""

PARTS: dict[str, type[BaseModel]] = {
    "variation": Variation,
    "seed_resize": SeedResize,
    "refiner": Refiner,
    "hires": HiresPass,
    "branch": BranchPoint,
}
"""Optional parts of a request, of which a text decides those it names."""

MAX_NAME = 300
MAX_DIGITS = 400
UNDEFINED = "undefined"
"""What Civitai writes for a sampler it does not know."""
_EXTENSIONS = (".safetensors", ".ckpt", ".pt", ".bin")


def request_fields(pairs: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Fields of `GenerationRequest` that the pairs of a text decide, all valid, and notes for the user.

    `sampler_options` holds only what is named. A number out of bounds becomes the nearest one possible (a seed is left
    out instead), a name that is not known here is left out; each with a note.
    """
    reader = _Reader(pairs)
    fields = dict(DEFAULTS)
    for key, name in NUMBER_FIELDS.items():
        reader.read(fields, GenerationRequest, key, name)
    for key, name in CHOICE_FIELDS.items():
        reader.read(fields, GenerationRequest, key, name)
    reader.read(fields, GenerationRequest, "Face restoration", "face_restoration")
    fields.update(reader.sampler())
    fields.update(reader.models())
    options: dict[str, Any] = {}
    for key, name in sorted(OPTION_FIELDS.items(), key=lambda item: item[0] == _eta_key(fields)):
        reader.read(options, SamplerOptions, key, name)
    fields["sampler_options"] = options
    fields.update(reader.parts(fields))
    reader.remark()
    return fields, reader.notes


def _eta_key(fields: Mapping[str, Any]) -> str:
    """The key whose eta counts where a text has both: a second pass may have had a sampler of the other kind."""
    return "Eta DDIM" if "sampler" in fields and find_sampler(fields["sampler"]).timesteps else "Eta"


def sampler_and_schedule(sampler: str, schedule: str | None) -> tuple[SamplerSpec, ScheduleSpec]:
    """What runs for these two values of a text.

    Before 1.9 the schedule was part of the sampler's name ("DPM++ 2M Karras"); it then counts more than `schedule`. A
    schedule that is not known counts as Automatic. Raises `UnknownName` for a sampler that is not known.
    """
    name, ending = split_legacy_sampler_name(sampler)
    spec = find_sampler(name)
    try:
        return spec, find_schedule(ending or schedule or AUTOMATIC)
    except UnknownName:
        return spec, find_schedule(AUTOMATIC)


def for_form(sampler: SamplerSpec, schedule: ScheduleSpec) -> str:
    """The schedule as the form shows it: a sampler's own default is Automatic."""
    is_default = sampler.default_schedule and resolve_schedule(sampler, AUTOMATIC) == schedule
    return AUTOMATIC if is_default else schedule.label


class _Reader:
    """Reads pairs one kind at a time, and keeps what was said about them."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = pairs
        self.notes: list[str] = []
        self.used: set[str] = set()

    def read(self, target: dict[str, Any], model: type[BaseModel], key: str, name: str) -> None:
        """Put the value of `key` into `target[name]` if there is one and `model` takes it."""
        self.used.add(key)
        if key not in self.pairs:
            return
        text = self.pairs[key].strip()
        annotation = model.model_fields[name].annotation
        if annotation is bool or get_origin(annotation) is Literal:
            value = self._choice(key, text, [True, False] if annotation is bool else list(get_args(annotation)))
        elif annotation is str:
            value = self._title(key) if key in TITLE_KEYS else self.pairs[key]
        else:
            value = self._number(key, text, model, name)
        if value is not None:
            target[name] = value

    def sampler(self) -> dict[str, Any]:
        """Sampler and schedule."""
        self.used |= {"Sampler", "Schedule type", "Scheduler"}
        name = self.pairs.get("Sampler")
        if name is None:
            return {}
        given = self.pairs.get("Schedule type") or self.pairs.get("Scheduler")
        try:
            sampler, schedule = sampler_and_schedule(name, given)
        except UnknownName:
            undefined = name.strip().casefold() == UNDEFINED
            known = f"There is no sampler named {shortened(name)!r} here; it was left out."
            self.notes.append("The text does not say which sampler it was (Undefined)." if undefined else known)
            return {}
        if given and schedule.label == AUTOMATIC and given.strip().casefold() != AUTOMATIC.casefold():
            self.notes.append(f"There is no schedule named {shortened(given)!r} here; Automatic is used.")
        return {"sampler": sampler.name, "schedule": for_form(sampler, schedule)}

    def parts(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The optional parts that the text turns on; `fields` are those read so far."""
        hires = has_hires(self.pairs)
        found: dict[str, dict[str, Any]] = {name: {} for name in PARTS if hires or name != "hires"}
        if not hires:
            found |= self._pictures()
            found["sd_upscale"] = self._upscale()
        for key, name in PART_FIELDS.items():
            part, _, field = name.partition(".")
            if part in found:
                self.read(found[part], PARTS[part], key, field)
        if "Variation seed" in self.pairs and "seed" not in found["variation"]:
            found["variation"] = {}  # another seed would be another picture, and no better than none
        if hires:
            self.used.update((*HIRES_NAMES, "First pass size-1", "First pass size-2"))
            first = (fields["sampler"], fields["schedule"]) if "sampler" in fields else None
            found["hires"].update(hires_names(self.pairs, first, self.notes.append))
            modules, keys = hires_modules(self.pairs)
            found["hires"].update(modules)
            self.used |= keys
        found["plot"], more, used = plot_fields(self.pairs)
        self.notes += more
        self.used |= used
        if found["plot"]:
            for key, field in OPTION_KEYS.items():
                self.read(found["plot"], Plot, key, field)
        valid: dict[str, Any] = {}
        for name, values in found.items():
            beside = {"source": valid["source"]} if name in ("mask", "sd_upscale") and "source" in valid else {}
            valid |= self._part(name, values, beside)
        return valid

    def _pictures(self) -> dict[str, dict[str, Any]]:
        """The picture to begin with and its mask, where the text names them; a note where it only tells that there was one."""
        if missing := picture_is_missing(self.pairs):
            self.notes.append(missing)
            self.used.update(PICTURE_KEYS)
        found: dict[str, dict[str, Any]] = {}
        if "Init image" in self.pairs:
            for part, model, keys in (("source", Source, SOURCE_KEYS), ("mask", Mask, MASK_KEYS)):
                for key, field in keys.items():
                    if key != "Mask mode":
                        self.read(found.setdefault(part, {}), model, key, field)
            self.used |= {"Mask mode", "Init image hash"}
            found["mask"]["inverted"] = self.pairs.get("Mask mode") == NOT_MASKED
        return found

    def _upscale(self) -> dict[str, Any]:
        """That the picture was enlarged and painted in tiles; off where its upscaler, or the picture, is not named."""
        found: dict[str, Any] = {}
        if UPSCALER_KEY in self.pairs and "Init image" in self.pairs:
            for key, field in UPSCALE_KEYS.items():
                self.read(found, SdUpscale, key, field)
            found["upscaler"] = upscaler_name(found["upscaler"])
        return found

    def _part(self, name: str, values: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
        """`{name: the whole part}` of these values, in a request with what is `beside`; empty when it would change nothing or is not possible."""
        try:
            whole = GenerationRequest.model_validate({**beside, name: values}).model_dump()[name]
        except ValidationError as error:
            self.notes.append(f"{invalid_request(error, GenerationRequest).message} It was left out.")
            return {}
        return {} if whole is None else {name: dict(whole)}

    def models(self) -> dict[str, Any]:
        """Checkpoint and VAE as `name [hash]`, the form that the library looks up hash first."""
        self.used |= {"Model", "VAE", "VAE hash"}
        found: dict[str, Any] = {}
        model = self._title("Model", "Model hash")
        if model:
            found["model"] = model
        vae = self.pairs.get("VAE") or self.pairs.get("VAE hash", "")
        if vae not in ("", "None", "Automatic", "Default (model)"):
            found["vae"] = self._title("VAE", "VAE hash") or "Automatic"
        name = self.pairs.get("Hypernet", "")
        if name not in ("", "None"):
            self.used.add("Hypernet")
            if title := self._title("Hypernet"):
                found["hypernetwork"] = title
                self.read(found, GenerationRequest, "Hypernet strength", "hypernetwork_strength")
        names, keys = module_names(self.pairs, FIRST)
        self.used |= keys
        return {**found, "text_encoders": names} if names else found

    def remark(self) -> None:
        """Notes about the whole."""
        if "RNG" not in self.pairs and not self.pairs.get("Version", "").startswith(PROGRAM):
            self.notes.append(
                "The text names no RNG, so the noise was drawn on a graphics card (GPU). NV gives the noise of an NVIDIA "
                "card on every device."
            )
        self.used |= {*TEMPLATE_KEYS}
        templates = [f"{key} {shortened(self.pairs[key])!r}" for key in TEMPLATE_KEYS if self.pairs.get(key)]
        if templates:
            self.notes.append(f"The prompts are those that were drawn from: {'; '.join(templates)}.")
        self.notes += unused_notes(self.pairs, self.used)

    def _title(self, name_key: str, hash_key: str = "") -> str | None:
        name, short_hash = self.pairs.get(name_key, "").strip(), self.pairs.get(hash_key, "").strip()
        for extension in _EXTENSIONS:
            name = name.removesuffix(extension)
        title = f"{name} [{short_hash}]" if name and short_hash else name or short_hash
        if len(title) > MAX_NAME:
            self.notes.append(f"{name_key} {shortened(title)!r} is too long for a name; it was left out.")
            return None
        return title or None

    def _choice(self, key: str, text: str, choices: list[Any]) -> Any:
        for choice in choices:
            if text.casefold() == str(choice).casefold():
                return choice
        known = ", ".join(str(choice) for choice in choices)
        self.notes.append(f"{key} {shortened(text)!r} is not known here (known: {known}); it was left out.")
        return None

    def _number(self, key: str, text: str, model: type[BaseModel], name: str) -> float | int | None:
        number = _parse(text, whole=model.model_fields[name].annotation is int)
        if number is None:
            self.notes.append(f"{key} {shortened(text)!r} is not a number; it was left out.")
            return None
        low, high = _bounds(model, name)
        nearest = max(low, min(high, number))
        if nearest == number:
            return number
        if name == "seed":
            self.notes.append(f"{key} {shortened(text)} is not between {low} and {high}; it was left out.")
            return None
        self.notes.append(f"{key} {shortened(text)} is not between {low} and {high}; {nearest} is used.")
        return nearest


def _parse(text: str, *, whole: bool) -> float | int | None:
    """A finite number; a whole one without the detour through float."""
    if len(text) > MAX_DIGITS:
        return None
    try:
        return int(text) if whole else _finite(float(text))
    except ValueError:
        pass
    try:
        number = _finite(float(text))
    except ValueError:
        return None
    return None if number is None else int(number)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _bounds(model: type[BaseModel], name: str) -> tuple[float, float]:
    """The smallest and largest value that the field takes, from its definition."""
    metadata = model.model_fields[name].metadata
    low = next((item.ge for item in metadata if hasattr(item, "ge")), -math.inf)
    high = next((item.le for item in metadata if hasattr(item, "le")), math.inf)
    return low, high
