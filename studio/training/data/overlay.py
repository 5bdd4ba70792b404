"""``captions.json``: edited captions of data sets whose own files are better left alone (tables of pictures, arrays, Flickr8k).

    {"version": 1, "captions": {"data/train-0.parquet row 17": {"key": "<sha256>", "captions": ["a fox"], "stored": ["a dog"]}}}

An entry counts only for the picture it was written for: the key must match. ``stored`` is what the data set itself says; an edit that
comes back to it takes the entry out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.errors import DatasetError
from studio.paths import atomic_write
from studio.schema.complaint import first_complaint

FILE = "captions.json"
MAX_FILE = 256 << 20


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    captions: tuple[str, ...]
    stored: tuple[str, ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int = 1
    captions: dict[str, _Entry] = {}


class Overlay:
    """The edits of one data set."""

    def __init__(self, folder: Path) -> None:
        """Read the file in ``folder``, if there is one. Raises ``DatasetError`` when it is damaged or of a newer version."""
        self._path = folder / FILE
        self._file = _File()
        if not self._path.is_file():
            return
        try:
            if self._path.stat().st_size > MAX_FILE:
                raise DatasetError(f"{self._path} is larger than {MAX_FILE >> 20} MB.", field="path")
            self._file = _File.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DatasetError(f"{self._path} holds no edited captions: {_reason(error)}.", field="path") from error
        if self._file.version != 1:
            raise DatasetError(f"{self._path} is of version {self._file.version}; 1 is known.", field="path")

    def __len__(self) -> int:
        return len(self._file.captions)

    def captions(self, name: str, key: str, stored: Sequence[str]) -> tuple[str, ...]:
        """The captions in force for a picture: the edited ones, or those ``stored`` in the data set."""
        entry = self._file.captions.get(name)
        return entry.captions if entry is not None and entry.key == key else tuple(stored)

    def edit(self, name: str, key: str, stored: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
        """Write ``captions`` for a picture and return those that were in force. Raises ``StorageError``; nothing has then changed."""
        former = self.captions(name, key, stored)
        entries = dict(self._file.captions)
        entries.pop(name, None)
        if tuple(captions) != tuple(stored):
            entries[name] = _Entry(key=key, captions=tuple(captions), stored=tuple(stored))
        fresh = _File(captions=entries)
        atomic_write(self._path, json.dumps(fresh.model_dump(mode="json"), ensure_ascii=False, indent=1).encode())
        self._file = fresh
        return former


def _reason(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return first_complaint(error, _File).sentence("file").removesuffix(".")
