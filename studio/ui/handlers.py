"""What the form's buttons do: read the form, call the studio, say what came of it.

Every handler answers with component updates, one of which is the *outcome*: a small dictionary that the script shows as a
message, `{"job": 7}`, `{"notes": [...]}` or `{"error": {...}}`. A bad value ends as an outcome too, and changes nothing on
the form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from studio.errors import IncompatibleFile, InvalidRequest, StudioError
from studio.samplers import find_sampler, find_schedule
from studio.schema.faces import DEFAULT_WEIGHT
from studio.schema.parts import BUILT_IN
from studio.schema.request import RunOptions
from studio.settings import Settings, updated
from studio.ui.form import Form, Lookup, complete, library_choices, model_choices, possible
from studio.upscalers import find_upscaler

if TYPE_CHECKING:
    from studio.app import Studio

Outcome = dict[str, Any]
Updates = dict[Component, Any]
LISTS = (
    *("model", "refiner.checkpoint", "hires.checkpoint", "vae", "hires.vae", "hires.upscaler", "sd_upscale.upscaler"),
    *("text_encoders", "hires.text_encoders", "hypernetwork", "face_restoration", "styles"),
)
"""Fields whose choices are what the library has."""


@dataclass(frozen=True)
class Handlers:
    """Bound to one page: its form, the component that carries outcomes, and the one that brings data from the script.

    They may raise `StudioError`: `studio.ui.wiring.listen` makes an outcome of it.
    """

    studio: Studio
    form: Form
    outcome: Component
    parcel: Component
    settings: dict[str, Component] = field(default_factory=dict)
    """The components of the Settings tab, by name of the setting."""

    def submit(self, values: Mapping[Component, Any]) -> Updates:
        """Generate: the form becomes a job in the queue."""
        settings = self.studio.settings
        options = RunOptions(preview_every=settings.preview_every, keep_latents=settings.keep_latents)
        record = self.studio.submit(self.form.read(values), options)
        return self._say({"job": record.id, "position": record.position, "notes": list(record.notes)})

    def open_page(self, browser: str) -> Updates:
        """A page was opened: fresh lists, and the form as this browser left it."""
        notes = [*self.studio.notes, *self._style_notes()]
        request = self.studio.default_request().model_dump()
        try:
            shown, _ = possible(self.studio.load_form(browser) or {}, self._lookups())
            request.update(shown)
        except StudioError as error:
            notes.append(f"The form could not be restored: {error.message}")
        shown = http_settings(self.studio.settings)
        updates = self._with_lists({**self.form.fill(request), **self._say({"notes": notes, "settings": shown})})
        return {**updates, **{component: gr.update(value=shown[name]) for name, component in self.settings.items()}}

    def fill(self, values: Mapping[Component, Any]) -> Updates:
        """Show what the script sends: `{"request": {...}, "notes": [...], "whole": bool}`.

        `whole` means the request is all there is to know about one picture: fields it does not name get their default.
        """
        parcel = _parcel(values[self.parcel])
        request, given = parcel.get("request"), parcel.get("notes")
        shown, notes = possible(request if isinstance(request, dict) else {}, self._lookups())
        if parcel.get("whole"):
            shown = complete(shown)
        told = [str(note) for note in given] if isinstance(given, list) else []
        return {**self.form.fill(shown), **self._say({"filled": sorted(shown), "notes": [*told, *notes]})}

    def select_model(self, values: Mapping[Component, Any]) -> Updates:
        """Another checkpoint: remembered as the selected one; a native square size follows it."""
        model, width, height = (values[self.form.controls[name]] for name in ("model", "width", "height"))
        chosen = self.studio.select_checkpoint(str(model or ""))
        natives = {other.native_size for other in self.studio.library.checkpoints()}
        updates = self._say({"model": chosen.name})
        if width == height and width in natives and width != chosen.native_size:
            updates |= self.form.fill({"width": chosen.native_size, "height": chosen.native_size})
        return updates

    def refresh(self) -> Updates:
        """Look for new model files."""
        self.studio.library.refresh()
        count = len(model_choices(self.studio.library.checkpoints()))
        said = f"{count} checkpoint{'' if count == 1 else 's'} found."
        return self._with_lists(self._say({"refreshed": True, "notes": [said, *self._style_notes()]}))

    def change_setting(self, name: str, value: Any) -> Updates:
        """Store one setting. What is stored already is said without the settings: nothing has changed."""
        now = self.studio.settings
        try:
            if name in http_settings(now) and getattr(updated(now, {name: value}), name) == getattr(now, name):
                return self._say({"setting": name})
            fresh = self.studio.update_settings({name: value}, over_http=True)
        except StudioError as error:
            error.field = f"setting:{name}"  # some have the name of a field of the form
            raise
        return self._say({"setting": name, "settings": http_settings(fresh)})

    def _style_notes(self) -> list[str]:
        """Why no styles are offered although there is a file of them."""
        try:
            self.studio.library.styles.styles()
        except StudioError as error:
            return [error.message]
        return []

    def _say(self, outcome: Outcome) -> Updates:
        return {self.outcome: outcome}

    def _with_lists(self, updates: Updates) -> Updates:
        """`updates`, with the choices of `LISTS` as the library has them now."""
        for name, choices in library_choices(self.studio).items():
            component = self.form.controls[name]
            updates[component] = {**updates.get(component, gr.update()), "choices": choices}
        return updates

    def _lookups(self) -> dict[str, Lookup]:
        """How the form's names are found: any spelling that a picture may have gives the one in the list."""
        return {
            "model": self._usable_checkpoint,
            "refiner": lambda part: {**part, "checkpoint": self._usable_checkpoint(part["checkpoint"])},
            "hires": _known_hires,
            "hires.upscaler": lambda name: find_upscaler(name, self.studio.library, "hires.upscaler")[0].name,
            "sd_upscale.upscaler": lambda name: (
                name and find_upscaler(name, self.studio.library, "sd_upscale.upscaler")[0].name
            ),
            "hires.checkpoint": lambda name: name and self._usable_checkpoint(name),
            "hires.vae": lambda name: name and self._vae(name),
            "hires.text_encoders": self._text_encoders,
            "vae": self._vae,
            "text_encoders": self._text_encoders,
            "hypernetwork": lambda name: name and self.studio.library.hypernetwork(name).name,
            "face_restoration": lambda name: name and self.studio.library.face_plan(name, DEFAULT_WEIGHT).name,
            "sampler": lambda name: find_sampler(name).name,
            "schedule": lambda name: find_schedule(name).label,
            "styles": lambda names: tuple(self.studio.library.style(name).name for name in names),
        }

    def _vae(self, name: str) -> str:
        return found.name if (found := self.studio.library.vae(name)) else "Automatic"

    def _text_encoders(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name if name == BUILT_IN else self.studio.library.text_encoder(name).name for name in names)

    def _usable_checkpoint(self, name: str) -> str:
        model = self.studio.library.checkpoint(name)
        if model.problem:
            raise IncompatibleFile(f"{model.name} cannot be used: {model.problem}", field="model")
        return model.name


def _known_hires(part: Mapping[str, Any]) -> dict[str, Any]:
    """The second pass with the names of the tables. Raises `UnknownName`."""
    names = {
        "sampler": part["sampler"] and find_sampler(part["sampler"]).name,
        "schedule": part["schedule"] and find_schedule(part["schedule"]).label,
    }
    return {**part, **names}


def http_settings(settings: Settings) -> dict[str, Any]:
    """The settings that the page may show and change."""
    names = [name for name, info in Settings.model_fields.items() if is_http(info.json_schema_extra)]
    return {name: getattr(settings, name) for name in names}


def is_http(extra: object) -> bool:
    """Whether a setting with this `json_schema_extra` may be changed over HTTP."""
    return isinstance(extra, dict) and bool(extra.get("http"))


def _parcel(text: Any) -> dict[str, Any]:
    """The JSON object that the script sent. Raises `InvalidRequest`."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError):
        raise InvalidRequest("The page sent something that is no JSON.", field="parcel") from None
    if not isinstance(data, dict):
        raise InvalidRequest("The page sent something that is no JSON object.", field="parcel")
    return data
