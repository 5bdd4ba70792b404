"""Copies of checkpoints on disk, in the number format and memory layout that a processor paints with; a loaded model's weights are the mapped copy.

Most checkpoints are float16 files, which processors do not compute in: converting two gigabytes takes a second or two at every load, and as much
memory is filled anew. A copy is written once, while the checkpoint is loaded for the first time, and only mapped from then on. Mapped pages are the
system's own cache of the file, so they are counted as this process's memory once, and may be taken and read again where memory runs short.

    header            JSON in ASCII, padded with spaces: what the weights are and which file they were made of
    weights           each at a multiple of 64 bytes
    sums              an int64 for each 64 MiB of weights, the sum of their 64-bit words

A copy is believed only if header and size are those that this program would write for the checkpoint as it is, and if the sums agree. Else it is
deleted and made anew, as after a power failure, so nothing waits for the disk. Nobody writes to a copy: it appears under its name when it is complete,
and is deleted, never shortened, for that would kill the process that mapped it. Pages are mapped privately: what a process writes stays its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from studio.engine.loading_weights import Filling
from studio.families.signature import Part
from studio.locking import BUSY, lock

VERSION = 1
"""To be raised whenever other weights would be made of the same file."""
SPARED_SECONDS = 24 * 3600
"""Copies used since are not deleted for another one's sake. So at most the space for copies is written anew in a day, whatever is loaded in turn."""
FREE_PART = 4
"""A copy takes at most one part in so many of what is free on the disk."""
BLOCK = 1 << 26
_ALIGNMENT = 64
_END = ".weights"
log = logging.getLogger(__name__)


class Copies:
    """The copies in `folder`, which together take at most `limit` bytes. For 0 none is made."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def copy(self, fillings: Mapping[Part, Filling]) -> MappedCopy | None:
        """The copy of a checkpoint whose parts are `fillings`, made if there is none.

        None where there is no room for it, the folder cannot be written, or another process is writing there; the log tells.
        Raises what `Filling.read` raises while the copy is made.
        """
        form = _Form(fillings)
        try:
            return self._opened(form) or self._written(form, fillings)
        except OSError as error:
            log.warning("no copy of %s: %s", form.source, error)
            return None

    def trim(self) -> None:
        """Delete what was used longest ago until the rest is within the limit, and what was left half-written. For the start of a process."""
        try:
            with self._alone():
                self._clean()
                self._take(self._entries(), self._limit)
        except OSError as error:
            log.warning("copies of checkpoints cannot be cleared away: %s", error)

    def _opened(self, form: _Form) -> MappedCopy | None:
        """The copy if it is there and sound; one that is not is deleted."""
        path = self._folder / form.name
        try:
            with path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size == form.size and stream.read(len(form.head)) == form.head:
                    found = MappedCopy(stream, form)
                    if found.is_sound:
                        with contextlib.suppress(OSError):  # of a folder that can only be read
                            os.utime(path)
                        return found
                    del found  # Windows deletes no mapped file
        except FileNotFoundError:
            return None
        log.warning("the copy of %s is damaged and is made anew", form.source)
        path.unlink(missing_ok=True)
        return None

    def _written(self, form: _Form, fillings: Mapping[Part, Filling]) -> MappedCopy | None:
        if form.size > self._limit:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._alone():
                self._clean(form)
                if not self._has_room(form.size):
                    return None
                temporary = self._folder / f"{form.name}.tmp"
                try:
                    with temporary.open("w+b", buffering=0) as stream:
                        form.write(stream, fillings)
                    temporary.replace(self._folder / form.name)
                finally:
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in BUSY:  # this time without
                return None
            raise
        return self._opened(form)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes or deletes here meanwhile. Raises `OSError`, with a number in `BUSY` when somebody does already."""
        if not self._folder.is_dir():
            yield
            return
        with (self._folder / "lock").open("a", encoding="ascii") as stream:
            lock(stream, wait=False)
            yield

    def _clean(self, form: _Form | None = None) -> None:
        """Delete what a killed process left half-written, and copies of earlier states of the files of `form`."""
        for path in self._folder.glob(f"*{_END}.tmp"):
            path.unlink()
        if form:
            for path in self._folder.glob(f"{form.place}-*{_END}"):
                if not path.name.startswith(f"{form.place}-{form.state}-"):
                    _delete(path)

    def _has_room(self, size: int) -> bool:
        """Make room for `size` bytes, where there can be."""
        if size > shutil.disk_usage(self._folder).free // FREE_PART:
            return False
        found = self._entries()
        old = [entry for entry in found if entry[0] < time.time() - SPARED_SECONDS]
        spared = sum(held for _, held, _ in found) - sum(held for _, held, _ in old)
        return (
            spared + size <= self._limit and spared + self._take(old, self._limit - spared - size) + size <= self._limit
        )

    def _entries(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of every copy, what was used longest ago first."""
        found = []
        for path in self._folder.glob(f"*{_END}"):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        return sorted(found)

    @staticmethod
    def _take(entries: list[tuple[float, int, Path]], limit: int) -> int:
        """Delete the first ones until the others take at most `limit` bytes; how many they take."""
        left = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if left > limit and _delete(path):
                left -= size
        return left


class MappedCopy:
    """A copy that is mapped for as long as one of its tensors, or this object, lives."""

    def __init__(self, stream: BinaryIO, form: _Form) -> None:
        if hasattr(os, "posix_fadvise"):  # twice as fast where the file is not in memory yet
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._pages = mmap.mmap(stream.fileno(), form.size, access=mmap.ACCESS_COPY)
        self._bytes = torch.frombuffer(self._pages, dtype=torch.uint8)
        self._spans, self._weights = form.spans, (len(form.head), form.end)

    @property
    def is_sound(self) -> bool:
        """Whether all weights are as they were written. Reads the whole file, which brings its pages into memory."""
        return torch.equal(self.sums(), self._bytes[self._weights[1] :].view(torch.int64))

    def sums(self) -> Tensor:
        """int64 for each `BLOCK` of weights: the sum of their words, overflowing as it likes."""
        words = self._bytes[slice(*self._weights)].view(torch.int64)
        return torch.stack([block.sum() for block in torch.split(words, BLOCK // 8)])

    def state(self, part: Part, filling: Filling) -> Mapping[str, Tensor]:
        """The parameters of a part by name, for `Filling.from_copy`."""
        return {key: filling.laid_out(key, self._bytes[start:stop]) for key, (start, stop) in self._spans[part].items()}

    def release(self, tensor: Tensor) -> None:
        """Hand back the pages of a tensor that is not read any more; should it be, they come from the file again."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        first = tensor.data_ptr() - self._bytes.data_ptr()
        start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (first + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            self._pages.madvise(mmap.MADV_DONTNEED, start, length)


class _Form:
    """What a copy has to look like, and what it is called: its files' place, their state and all that is made of them."""

    def __init__(self, fillings: Mapping[Part, Filling]) -> None:
        files = sorted({state for filling in fillings.values() for state in filling.weights.states})
        self.source = next(iter(fillings.values())).weights.paths[0]
        rows: list[object] = []
        spans: dict[Part, dict[str, tuple[int, int]]] = {part: {} for part in fillings}
        end = 0
        for part, filling in fillings.items():
            for key in filling.keys:
                source, shape = filling.sources[key], filling.shapes[key]
                spans[part][key] = (end, end + filling.dtype.itemsize * math.prod(shape))
                form = (str(filling.dtype), str(filling.layout(key)), shape)
                rows.append((part, key, *form, source.key, source.third, source.transposed, end))
                end = _whole(spans[part][key][1], _ALIGNMENT)
        text = json.dumps({"version": VERSION, "files": files, "weights": rows}).encode()
        self.head = text.ljust(_whole(len(text), mmap.PAGESIZE))
        start = len(self.head)
        self.spans = {part: {key: (start + a, start + b) for key, (a, b) in spans[part].items()} for part in spans}
        self.end = start + end
        self.size = self.end + 8 * -(-end // BLOCK)
        self.place, self.state = _digest([path for path, *_ in files]), _digest(files)
        self.name = f"{self.place}-{self.state}-{hashlib.sha256(self.head).hexdigest()[:16]}{_END}"

    def write(self, stream: BinaryIO, fillings: Mapping[Part, Filling]) -> None:
        """Write the copy. Raises `OSError`, and what `Filling.read` raises."""
        _put(stream, 0, self.head)
        spans = [(part, key, *span) for part in fillings for key, span in self.spans[part].items()]
        table = torch.empty(max(stop - start for *_, start, stop in spans), dtype=torch.uint8)
        for part, key, start, stop in spans:
            place = table[: stop - start]
            fillings[part].read(key, fillings[part].laid_out(key, place))
            _put(stream, start, place.numpy().data)
        stream.truncate(self.size)
        _put(stream, self.end, MappedCopy(stream, self).sums().numpy().tobytes())


def _put(stream: BinaryIO, start: int, data: bytes | memoryview) -> None:
    """Write all of `data` from byte `start` on."""
    stream.seek(start)
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


def _whole(size: int, unit: int) -> int:
    """`size`, rounded up to whole units."""
    return -(-size // unit) * unit


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _delete(path: Path) -> bool:
    """Whether it is gone; Windows keeps what is mapped."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        return True
    return False
