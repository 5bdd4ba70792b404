"""What tells that the files of a loaded model are no longer those that were read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from studio.errors import NotFound
from studio.families import folder_weight_files
from studio.schema.models import ModelInfo

Fingerprint = tuple[tuple[str, int, int], ...]
"""(path, bytes, modification time in ns) of every file that was read."""


def fingerprint(info: ModelInfo) -> Fingerprint:
    """What would change if the model's files were replaced. Raises `NotFound` when one of them is gone."""
    path = Path(info.path)
    try:
        files = (*folder_weight_files(path), *sorted(path.rglob("*.json"))) if info.layout == "folder" else (path,)
        states = states_of(files)
    except OSError:
        states = ()
    if not states:
        raise NotFound(f"{info.name} is gone: there is no {path} any more. Refresh the list of models.", field="model")
    return states


def states_of(files: Iterable[Path]) -> Fingerprint:
    """The same of these files. Raises `OSError` for one that is gone."""
    stats = [(file, file.stat()) for file in files]
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats)
