"""Where the reference vectors lie.

The vectors are data files (see ``tests/vectors/README.md``). Setting the environment variable ``STUDIO_VECTORS`` to another
folder runs the same tests on another set of files of the same formats, so tests take every case from the files and name
or count none of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ENVIRONMENT_VARIABLE = "STUDIO_VECTORS"


def vector_path(name: str) -> Path:
    """Return the path of vector file ``name`` (such as ``"sigmas.json"``).

    Raises:
        FileNotFoundError: the folder in use has no such file; the message names both.
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(override) if override else Path(__file__).parent / "vectors"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"vector file {name!r} is not in {folder} (set {ENVIRONMENT_VARIABLE} to change the folder)"
        )
    return path


def load_json(name: str) -> Any:
    """Parse the JSON vector file ``name``."""
    return json.loads(vector_path(name).read_text(encoding="utf-8"))
