"""What a run has written with `--out` before it was over, and going on with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Result = dict[str, Any]


class NotTogether(Exception):
    """Options that do not go together, or not with a file; the message says which, and what would."""


def read(file: Path, *benches: str) -> Result:
    """The result in `file`, whose entry `bench` is one of `benches`. Raises `NotTogether` for what `--out` has not written, and OSError."""
    try:
        found = json.loads(file.read_text("utf-8"))
        if found["bench"] in benches:
            return dict(found)
    except (ValueError, KeyError, TypeError):
        pass
    raise NotTogether(f"{file} is no result of {' or '.join(benches)} that --out has written.")


def check_same(file: Path, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises `NotTogether` where what `file` was measured with differs from what it is now: `pairs` are (then, now) by name."""
    for key, (old, new) in pairs.items():
        if old != new:
            raise NotTogether(f"{file} was measured with {key} {old}, and this is {new}. Name another file for --out.")
