"""Putting a finished file among the user's models: complete or not at all, and never over another file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from studio.errors import DamagedFile
from studio.library.header import METADATA, read_header
from studio.paths import storage_error

SUFFIX = ".safetensors"


def claim(folder: Path, stem: str, make: Callable[[Path], None], same: Callable[[Path, Path], bool]) -> Path:
    """Let `make` write a .safetensors file and give it the first free name of `stem`, `stem-1`, `stem-2` …; returns where it is.

    A file that is there already and is the `same` (asked with both paths) is taken instead: a run that was killed while it finished does
    not leave two. Raises `StorageError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", suffix=".tmp", dir=folder)
        os.close(handle)
        fresh = Path(name)
        try:
            make(fresh)
            with fresh.open("rb+") as stream:
                os.fsync(stream.fileno())
            fresh.chmod(0o644)
            return _placed(fresh, folder, stem, same)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; empty when it cannot be read."""
    try:
        found = read_header(path).get(METADATA, {})
    except (DamagedFile, OSError):
        return {}
    return {str(key): str(value) for key, value in found.items()}


def _placed(fresh: Path, folder: Path, stem: str, same: Callable[[Path, Path], bool]) -> Path:
    for turn in count():
        target = folder / f"{stem}{f'-{turn}' if turn else ''}{SUFFIX}"
        if target.exists():
            if same(target, fresh):
                return target
            continue
        try:
            os.link(fresh, target)  # fails where somebody was faster, unlike a rename
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            os.replace(fresh, target)
        return target
    raise AssertionError("count() does not end")
