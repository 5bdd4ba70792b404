"""What is in the sections of the form that fold up, for the heads of the closed ones, which say how much of it was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.schema.request import GenerationRequest
from studio.ui.fields import read_field
from studio.ui.looks import LOOKS, PARTS, SWITCHES

OWN_WORDS = frozenset({"script_txt2img_xyz_plot"})
"""Sections whose head says something else: that of a plot says how many pictures it is."""


def folded(sections: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Element id of each section -> its fields, each with its default as JSON has it.

    `sections` has the section for the element id of each field that is in one, as `studio.ui.blocks.folds` finds them.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, look in LOOKS.items():
        section = sections.get(look.elem_id)
        if section and section not in OWN_WORDS and name not in SWITCHES:
            found.setdefault(section, {})[name] = _default(name)
    return found


def _default(name: str) -> Any:
    part, _, bare = name.rpartition(".")
    default = read_field(PARTS[part] if part else GenerationRequest, bare).default
    return list(default) if isinstance(default, tuple) else default
