"""Putting a finished file among the user's models: complete or not at all, and never over another file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from safetensors import SafetensorError

from studio.errors import DamagedFile, StorageError
from studio.library.header import METADATA, read_header
from studio.library.scan import preview_of
from studio.paths import atomic_write, storage_error
from studio.training.checkpoint import disk_error
from studio.training.runs import RunFolder
from studio.training.tuning.samples import sample_file

SUFFIX = ".safetensors"
_LENGTH_BYTES = 8


def claim(
    folder: Path, stem: str, owner: str, make: Callable[[Path], None], same: Callable[[Path, Path], bool]
) -> Path:
    """Let `make` write a .safetensors file and give it, with its metadata in order, the first free name of `stem`, `stem-1`, `stem-2` …

    Returns where it is. A file that is there already and is the `same` (asked with both paths) is taken instead: a run that was killed while it
    finished does not leave two. `owner` is the run: what it left half written is written anew. Raises `StorageError`.
    """
    fresh = folder / f".{owner}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            make(fresh)
            order_metadata(fresh)
            with fresh.open("rb+") as stream:
                os.fsync(stream.fileno())
            fresh.chmod(0o644)
            return _placed(fresh, folder, stem, same)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    except SafetensorError as error:
        raise storage_error(folder, disk_error(error)) from error


def add_preview(model: Path, run: RunFolder, step: int) -> None:
    """Put the run's first sample of its newest step up to `step` beside the file `model`, unless a picture is there or nothing was learned yet.

    A disk that has no room for it is no reason to fail: the picture is only a help.
    """
    first, last = sample_file(run, 1, 0), sample_file(run, step, 0)
    painted = [file for file in run.samples.glob("step-*-00.png") if first.name <= file.name <= last.name]
    if painted and preview_of(model) is None:
        with suppress(OSError, StorageError):
            atomic_write(model.with_suffix(".preview.png"), max(painted).read_bytes())


def order_metadata(path: Path) -> None:
    """Put the metadata of a .safetensors file into alphabetical order, in place: the library writes it in another order each time."""
    with path.open("rb+") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
        header = {METADATA: dict(sorted(header.pop(METADATA, {}).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise AssertionError("the same entries in another order need the same room")
        stream.seek(_LENGTH_BYTES)
        stream.write(text.ljust(length))


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
