"""Changing settings over HTTP: names are checked against the library and the tables before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.app import Studio
from studio.errors import UnknownName
from studio.samplers.table import find_sampler, find_schedule
from studio.settings import Settings


def change_settings(studio: Studio, changes: Mapping[str, Any]) -> Settings:
    """Store `changes`, all or none.

    Raises `UnknownName` (a setting, sampler or schedule), `UnknownModel`, `SettingsError`, and `NotAllowed` for what
    only the command line, the environment or the settings file may set.
    """
    unknown = changes.keys() - Settings.model_fields.keys()
    if unknown:
        name = sorted(unknown)[0]
        raise UnknownName.of("setting", name, Settings.model_fields, field=name)
    return studio.update_settings({key: _checked(studio, key, value) for key, value in changes.items()}, over_http=True)


def visible(settings: Settings) -> dict[str, Any]:
    """All settings but the password."""
    return settings.model_dump(exclude={"auth"})


def _checked(studio: Studio, key: str, value: Any) -> Any:
    """`value` with a name replaced by the proper one; what is no text is left for the settings to refuse."""
    if not isinstance(value, str):
        return value
    if key == "sd_model_checkpoint" and value:
        return studio.library.checkpoint(value).name
    if key == "sd_vae":
        vae = studio.library.vae(value)
        return vae.name if vae else value
    if key == "default_sampler":
        return find_sampler(value).name
    if key == "default_schedule":
        return find_schedule(value).label
    return value
