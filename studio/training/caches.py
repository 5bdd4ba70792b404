"""The caches of latents and texts below `outputs/.studio/training`: how they are kept within a bound. Needs no torch.

A run that begins touches every file that it will read, so what was touched last is what was used last. Both, looking and pruning, hold one lock: a file
is never taken from under a run that has just found it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from studio.locking import BUSY, lock

_LOCK = "lock"


@contextlib.contextmanager
def looking(store: Path) -> Iterator[None]:
    """While a run looks for what is there already; nothing is pruned meanwhile."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / _LOCK).open("a", encoding="ascii") as stream:
        lock(stream, wait=True)
        yield


def touch(file: Path) -> bool:
    """Say that `file` is in use; whether it is there."""
    try:
        os.utime(file)
    except OSError:
        return False
    return True


def prune(store: Path, most: int, *, spare: float) -> int:
    """Delete the files that were used longest ago until at most `most` bytes are left, none that was used after `spare` (Unix seconds).

    How many bytes went. Nothing happens while a run is looking.
    """
    if not store.is_dir():
        return 0
    with (store / _LOCK).open("a", encoding="ascii") as stream:
        try:
            lock(stream, wait=False)
        except OSError as error:
            if error.errno in BUSY:
                return 0
            raise
        found = sorted(_files(store))
        left = sum(size for _, size, _ in found)
        gone = 0
        for used, size, path in found:
            if left - gone <= most or used >= spare:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                gone += size
        return gone


def _files(store: Path) -> Iterator[tuple[float, int, Path]]:
    """(last use, bytes, path) of everything that was cached."""
    for path in store.glob("*/*/*.safetensors"):
        with contextlib.suppress(OSError):
            facts = path.stat()
            yield facts.st_mtime, facts.st_size, path
