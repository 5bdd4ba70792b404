"""What was read from files, kept until they change on disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

from studio.errors import NotFound

T = TypeVar("T")
FileStamp = tuple[str, int, int]
"""Path, modification time in ns and bytes: what tells one state of a file from another."""


def file_stamp(path: Path, called: str, field: str | None = None) -> FileStamp:
    """The state of the file at `path`. Raises `NotFound`, which says that what it is `called` is gone."""
    try:
        status = path.stat()
    except OSError:
        raise NotFound(f"The {called} is not there any more.", field=field) from None
    return str(path), status.st_mtime_ns, status.st_size


class FileCache(Generic[T]):
    """Keeps what was made of at most `most` states of files; what was used longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[FileStamp, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep_only(self, needed: Collection[FileStamp]) -> bool:
        """Let go of all but these; whether there were any."""
        idle = [stamp for stamp in self._kept if stamp not in needed]
        for stamp in idle:
            del self._kept[stamp]
        return bool(idle)

    def of(self, stamp: FileStamp, read: Callable[[], T]) -> T:
        """What `read` makes of the file in this state; not called where that is known. Raises what it raises."""
        if stamp not in self._kept:
            self._kept[stamp] = read()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(stamp)
        return self._kept[stamp]
