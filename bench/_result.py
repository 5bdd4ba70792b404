"""What results have in common: how they begin, when there is nothing to keep of them, and how they are handed over."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench._code import code
from bench._machine import machine
from studio import __version__
from studio.errors import StudioError
from studio.paths import REPOSITORY, atomic_write

RESULTS = REPOSITORY / "bench" / "results"


def facts(bench: str, *, quick: bool) -> dict[str, Any]:
    """The head of a result: which benchmark, with which code, on which machine. Called before anything is measured."""
    return {"bench": bench, "quick": quick, "version": __version__, "code": code(), "machine": machine()}


def has_nothing_to_keep(bench: str, *, quick: bool, kept: bool, flag: str = "--save") -> bool:
    """Whether figures were to be `kept` of a run that only shows that it runs; stderr then says so, and the command ends with 2."""
    if quick and kept:
        print(f"bench {bench}: --quick only shows that it runs; it has no figures to {flag}", file=sys.stderr)
    return quick and kept


def finish(result: Mapping[str, Any], file: Path | None = None) -> int:
    """Print the result as JSON, then write it to `file`, if there is one. 0, or 1 when it cannot be written (stderr says why)."""
    text = json.dumps(result, indent=2)
    print(text)
    try:
        if file is not None:
            atomic_write(file, text.encode() + b"\n")
    except StudioError as error:
        print(f"bench {result['bench']}: {error}", file=sys.stderr)
        return 1
    return 0
