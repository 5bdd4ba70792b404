"""Command-line flags made from pydantic fields, and the settings that a command line ends up with."""

from __future__ import annotations

import argparse
import os
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.paths import REPOSITORY, Paths
from studio.settings import Settings, load_settings

ENGINE_FIELDS = (
    "device",
    "attention",
    "precision",
    "compile",
    "without",
    "checkpoints_in_memory",
    "converted_checkpoints_gb",
)
"""Settings of what is painted with: flags of every command that paints."""
FEW = 8
"""Choices that are named in the usage; more are named in the help alone."""


def add_fields(
    parser: argparse.ArgumentParser,
    model: type[BaseModel],
    names: Iterable[str],
    *,
    show_default: bool = True,
    prefix: str = "",
) -> None:
    """One `--flag` per named field, with its help, bounds and choices; `prefix` stands before its name.

    Flags left out do not appear in the namespace, so defaults stay where they belong. A field of type bool that
    defaults to True becomes `--no-flag`, one of several values a flag that is given once for each.
    """
    for name in names:
        field = model.model_fields[name]
        name = prefix + name
        flag, kind = name.replace("_", "-"), _plain_type(field)
        text = _help(field, show_default).replace("%", "%%")
        if kind is bool:
            switched = not field.default
            option, text = (f"--{flag}", text) if switched else (f"--no-{flag}", f"Switch off: {text}")
            parser.add_argument(
                option, dest=name, action="store_const", const=switched, default=argparse.SUPPRESS, help=text
            )
        elif typing.get_origin(kind) is tuple:
            parser.add_argument(f"--{flag}", dest=name, metavar="NAME", action="append", default=argparse.SUPPRESS,
                                help=f"{text}; give it once for each")  # fmt: skip
        elif typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            metavar = flag.split("-")[-1].upper() if len(choices) > FEW else None
            text = f"{text}: {', '.join(choices)}" if metavar else text
            parser.add_argument(
                f"--{flag}", dest=name, choices=choices, metavar=metavar, default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(
                f"--{flag}", dest=name, metavar=flag.split("-")[-1].upper(), default=argparse.SUPPRESS, help=text
            )


def given(arguments: argparse.Namespace, names: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """The named flags that were on the command line, under their names without `prefix`."""
    return {name: getattr(arguments, prefix + name) for name in names if hasattr(arguments, prefix + name)}


def add_common(parser: argparse.ArgumentParser, names: Iterable[str] = ENGINE_FIELDS) -> None:
    """Where data lies, and those settings of the engine (`names`) that the command heeds."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="Folder of checkpoints, loras, outputs and settings.json (default: the program's own folder)",
    )
    add_fields(parser, Settings, names)


def open_settings(
    arguments: argparse.Namespace, names: Iterable[str] = ENGINE_FIELDS
) -> tuple[Settings, Paths, list[str]]:
    """Settings from file, environment and this command line, the folders, and notes to show.

    Raises `SettingsError` for a value that is not possible.
    """
    root = arguments.data_dir or os.environ.get("STUDIO_DATA_DIR") or REPOSITORY
    paths = Paths(Path(root).expanduser().resolve())
    settings, notes = load_settings(paths.settings_file, os.environ, given(arguments, names))
    return settings, paths, notes


def say(text: str) -> None:
    """A line for the person at the terminal: stderr, so that stdout stays for results."""
    print(text, file=sys.stderr, flush=True)


def _plain_type(field: FieldInfo) -> Any:
    """The field's type without `| None`."""
    arguments = [kind for kind in typing.get_args(field.annotation) if kind is not type(None)]
    optional = type(None) in typing.get_args(field.annotation)
    return arguments[0] if optional and len(arguments) == 1 else field.annotation


def _help(field: FieldInfo, show_default: bool) -> str:
    low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
    notes = [] if low is None or high is None else [f"{low} to {high}"]
    if show_default and field.default not in (None, "", False, True) and isinstance(field.default, str | int | float):
        notes.append(f"default {field.default}")
    return f"{field.description} ({'; '.join(notes)})" if notes else str(field.description)
