"""Presets: parts of configurations for usual wishes, TOML files in `recipes/presets/`, each with a title and a description."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio.errors import SettingsError
from studio.paths import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = REPOSITORY / "recipes" / "presets"


class Preset(BaseModel):
    """`config` is what it changes, in the shape of a configuration; the rest stays at its default."""

    name: str
    title: str
    description: str
    config: dict[str, Any]


def presets(folder: Path = PRESETS) -> list[Preset]:
    """All presets of `folder` by file name. Raises `SettingsError` naming a file that cannot be used."""
    return [_read(path) for path in sorted(folder.glob("*.toml"))]


def _read(path: Path) -> Preset:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        title, description = data.pop("title"), data.pop("description")
        return Preset(name=path.stem.split("-", 1)[-1], title=title, description=description, config=data)
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"The preset {path} cannot be used: {error}.") from error
