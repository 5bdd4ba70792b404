"""`Shelf`: the entries of some folders, read again only where the files have changed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from studio.library.scan import Found, Stamp, describe, find_models, folder_stamp, folder_times, preview_of
from studio.schema.models import ModelInfo, ModelKind

SETTLED_NS = 2_000_000_000
"""A folder whose time is as recent may change again without another time: file systems count in ticks, some in two seconds."""


@dataclass(frozen=True)
class Place:
    """A folder, the kind of model it is for, and folders inside it that are for others."""

    root: Path
    kind: ModelKind
    skip: tuple[Path, ...] = ()


class File(NamedTuple):
    """A weight file as it was when its model was described."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Entry:
    """A model, the state of its files, and those of them that hold weights."""

    info: ModelInfo
    stamp: Stamp
    files: tuple[File, ...]

    def is_current(self) -> bool:
        """Whether the files are still as they were."""
        path = Path(self.info.path)
        if self.info.layout == "folder":
            return folder_stamp(path) == self.stamp
        try:
            stat = path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == self.stamp[0][1:]


class Shelf:
    """Entries of several places in one list, by path. Thread-safe; the first question makes it look around."""

    def __init__(self, *places: Place) -> None:
        self._places = places
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] | None = None
        self._times: dict[str, int] = {}
        self._settled = False

    def entries(self, kind: ModelKind) -> list[Entry]:
        """Entries of one kind, sorted by name."""
        with self._lock:
            if self._entries is None:
                self.refresh()
            chosen = [entry for entry in (self._entries or {}).values() if entry.info.kind == kind]
        return sorted(chosen, key=lambda entry: (entry.info.name.casefold(), entry.info.name))

    def entry(self, path: str) -> Entry | None:
        """The entry of the model at `path`."""
        with self._lock:
            return (self._entries or {}).get(path)

    def look(self) -> None:
        """`refresh` if a folder has changed since, or so shortly before that its time cannot tell. What is written into a file in place goes unnoticed."""
        with self._lock:
            if not self._settled or self._folder_times() != self._times:
                self.refresh()

    def refresh(self) -> None:
        """Look at the folders again."""
        with self._lock:
            self._times = self._folder_times()
            self._settled = time.time_ns() - max(self._times.values(), default=0) > SETTLED_NS
            fresh: dict[str, Entry] = {}
            taken: set[tuple[ModelKind, str]] = set()
            for place in self._places:
                for found in find_models(place.root, place.skip):
                    entry = self._named(self._described(found, place.kind), found, taken)
                    if entry is not None:
                        fresh.setdefault(entry.info.path, entry)
            self._entries = fresh

    def _folder_times(self) -> dict[str, int]:
        return {path: at for place in self._places for path, at in folder_times(place.root).items()}

    def _described(self, found: Found, kind: ModelKind) -> Entry:
        old = (self._entries or {}).get(str(found.path))
        if old is not None and old.stamp == found.stamp:
            return old
        info, weights = describe(found, kind)
        names = (file.relative_to(found.path).as_posix() if found.layout_folder else file.name for file in weights)
        stamps = {name: (size, mtime_ns) for name, size, mtime_ns in found.stamp}
        files = (File(file, *stamps[name]) for file, name in zip(weights, names, strict=True) if name in stamps)
        return Entry(info, found.stamp, tuple(files))

    @staticmethod
    def _named(entry: Entry, found: Found, taken: set[tuple[ModelKind, str]]) -> Entry | None:
        """The entry under a name of its own: where its name is taken, with its suffix; None when that is taken too."""
        info = entry.info
        suffix = "" if found.layout_folder else found.path.suffix
        name = next((name for name in (found.name, found.name + suffix) if (info.kind, name) not in taken), None)
        if name is None:
            return None
        taken.add((info.kind, name))
        preview = preview_of(found.path)
        if (info.name, info.preview) == (name, preview):
            return entry
        return Entry(info.model_copy(update={"name": name, "preview": preview}), entry.stamp, entry.files)
