"""Parquet files as the Hugging Face hub stores data sets of pictures, naruto-blip-captions for one.

    data/train-00000-of-00002.parquet
        image   struct<bytes: binary, path: string>     the picture file, and what it was called
        text    string, or a list of strings

Shards lie in the folder, in ``data/`` or ``train/``; where some are called ``train``, the others (test, validation) are left alone. A single
file may also be given. The caption may be called ``caption``. Rows are counted from 0, as ``datasets`` does. Needs ``pyarrow``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import DatasetError
from studio.training.data.captions import checked_text
from studio.training.data.formats.base import Format, Found, Reading, walk
from studio.training.data.pictures import MAX_BYTES, Unusable
from studio.training.data.sources import EncodedSource

ENDING = ".parquet"
IMAGE, COLUMNS = "image", ("text", "caption")
FOLDERS = ("", "data", "train", "default/train")
ROWS_AT_ONCE = 8
"""Pictures of a shard that are in memory together."""
MAX_CHUNK = 2 << 30
"""Bytes of pictures in one row group, unpacked. A writer may put them all into one page, which takes about twice as much memory."""
BUFFER = 1 << 20
"""Bytes of the file that are read at once; without it a whole row group would be."""


def shards(path: Path) -> list[str]:
    """The files to read, relative to the data set's folder, in order."""
    if path.is_file():
        return [path.name] if path.suffix.lower() == ENDING else []
    if not path.is_dir():
        return []
    found = [name for folder in FOLDERS for name in _in(path, folder)]
    return [name for name in found if "train" in name.lower()] or found


def _in(root: Path, folder: str) -> list[str]:
    place = root / folder
    names = (entry.name for entry in place.iterdir() if entry.is_file()) if place.is_dir() else ()
    return sorted(f"{folder}/{name}".lstrip("/") for name in names if name.lower().endswith(ENDING) and name[0] != ".")


class Shard:
    """One file. Rows are read in batches, forward: going through them in order reads each byte once. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._rows: Iterator[Any] = iter(())
        self._batch: Any = None
        self._start = self._end = 0

    def captions(self) -> Iterator[object]:
        """The caption of every row, as it is stored; None where there is no such column. Raises ``DatasetError``."""
        try:
            file = self._open()
            names = file.schema_arrow.names
            if IMAGE not in names:
                raise DatasetError(
                    f"{self.path.name} has no column {IMAGE}; it has {', '.join(names)[:200]}.", field="path"
                )
            column = next((column for column in COLUMNS if column in names), None)
            if column is None:
                yield from (None for _ in range(file.metadata.num_rows))
                return
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                yield from batch.column(0).to_pylist()
        except DatasetError:
            raise
        except Exception as error:
            raise DatasetError(f"{self.path.name} is damaged: {str(error)[:200]}.", field="path") from error

    def picture(self, row: int) -> bytes:
        """The picture file in ``row``. Raises ``Unusable``."""
        with self._lock:
            try:
                return self._picture(row)
            except Unusable:
                raise
            except Exception as error:  # Arrow raises errors of many kinds on a damaged file
                self._rows, self._batch, self._start, self._end = iter(()), None, 0, 0
                raise Unusable(f"cannot be read: {str(error)[:200]}") from error

    def _picture(self, row: int) -> bytes:
        if self._batch is None or row < self._start:
            self._rows, self._start, self._end = self._batches(row)
            self._batch = ()
        while row >= self._end:
            self._batch = next(self._rows)
            self._start, self._end = self._end, self._end + self._batch.num_rows
        cell = self._batch.column(0)[row - self._start].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            named = isinstance(cell, dict) and cell.get("path")
            raise Unusable(f"holds no picture, only the name {str(named)[:80]!r}" if named else "holds no picture")
        return data

    def _batches(self, row: int) -> tuple[Iterator[Any], int, int]:
        """Batches from the row group that holds ``row`` on, and the number of its first row, twice."""
        file, first = self._open(), 0
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            facts = file.metadata.row_group(group)
            if not groups and row >= first + facts.num_rows:
                first += facts.num_rows
                continue
            groups.append(group)
            if facts.total_byte_size > MAX_CHUNK:
                raise Unusable(
                    f"is in a row group of {facts.total_byte_size >> 20} MB; at most {MAX_CHUNK >> 20} are read"
                )
        return file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=[IMAGE]), first, first

    def _open(self) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(self.path, memory_map=False, pre_buffer=False, buffer_size=BUFFER)


@dataclass(frozen=True)
class CellSource(EncodedSource):
    """A picture in a row of a shard."""

    shard: Shard = field(repr=False, compare=False)
    row: int

    def data(self) -> bytes:
        """As ``EncodedSource.data``."""
        data = self.shard.picture(self.row)
        if len(data) > MAX_BYTES:
            raise Unusable(f"has {len(data) >> 20} MB; at most {MAX_BYTES >> 20} are read")
        return data

    def identity(self) -> tuple[object, ...]:
        """As ``EncodedSource.identity``."""
        try:
            facts = self.shard.path.stat()
        except OSError as error:
            raise Unusable(f"cannot be read: {error.strerror or error}") from error
        return (str(self.shard.path), facts.st_size, facts.st_mtime_ns, self.row)


def read(path: Path) -> Reading:
    """All rows of all shards."""
    root, reading = path.parent if path.is_file() else path, Reading()
    names = shards(path)
    for name in names:
        shard = Shard(root / name)
        for row, stored in enumerate(shard.captions()):
            title = f"{name} row {row}"
            try:
                reading.add(Found(title, CellSource(shard, row), _captions(stored)))
            except Unusable as error:
                reading.problem(title, error)
    others = sum(name.lower().endswith(ENDING) for name in walk(root)) - len(names) if path.is_dir() else 0
    if others:
        reading.notes.append(f"{others} further parquet files, not called train, are left out.")
    return reading


def _captions(stored: Any) -> tuple[str, ...]:
    texts = stored if isinstance(stored, list) else [] if stored is None else [stored]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable(f"has a caption that is no text: {str(stored)[:60]!r}")
    return tuple(" ".join(checked_text(text).split()) for text in texts if text.strip())


FORMAT = Format(
    looks_for="parquet files with the columns image and text (or caption)",
    recognises=lambda path: bool(shards(path)),
    read=read,
    named=False,
)
