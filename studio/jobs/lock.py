"""Locks between processes: one server a data folder, and one numbering of pictures at a time. A stale lock file locks nobody out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from studio.errors import SettingsError
from studio.locking import BUSY, lock
from studio.paths import storage_error


class DataLock:
    """The right to be the one server of a data folder, by a file in its state folder. Hold it as long as the server lives."""

    def __init__(self, state: Path) -> None:
        self._file = state / "server.lock"
        self._stream: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises `SettingsError` naming the process that holds it, `StorageError` when the folder cannot be written.
        """
        if self._stream is not None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            stream = self._file.open("a+", encoding="ascii")
        except OSError as error:
            raise storage_error(self._file.parent, error) from error
        try:
            lock(stream, wait=False)
        except OSError as error:
            holder = _holder(stream)
            stream.close()
            if error.errno not in BUSY:
                raise storage_error(self._file.parent, error) from error
            raise SettingsError(
                f"{self._file.parent.parent} is already in use by another Latent Studio{holder}. "
                "Stop that one, or give this one another folder with --data-dir.",
                field="data_dir",
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only the name of its holder is unknown
            stream.truncate(0)
            stream.write(f"{os.getpid()}\n")
            stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Give the folder back. Idempotent. The file stays: removing it would race with the next server."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@contextlib.contextmanager
def waiting_lock(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on `file` for the block, waiting for other processes.

    Best effort: where the file cannot be made or the file system knows no locks, the block runs without.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock(stack.enter_context(file.open("a+", encoding="ascii")), wait=True)
        yield


def _holder(stream: IO[str]) -> str:
    """` (process 123)`, or nothing when the file does not say."""
    try:
        stream.seek(0)
        pid = stream.read(20).strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {pid})" if pid.isdecimal() else ""
