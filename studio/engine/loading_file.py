"""Tensors of a .safetensors file by plain reads, converted piece by piece on their way into memory.

The file is never mapped: a mapped file counts as this process's memory beside what is made of it, changes a loaded model when it is
written to, and kills the process (SIGBUS) when it shrinks. Pieces are so small that what is read, its conversion and the look at it happen in the
processor's cache; a weight's memory is written once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.library.header import METADATA, header_of

PIECE = 1 << 18
"""Elements that are converted at a time: 512 KiB of float16."""
FLOATS: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""Number formats of weights, as the file calls them."""
_TYPES = FLOATS | {
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


FileState = tuple[str, int, int]
"""(path, bytes, modification time in ns)"""


class TensorFile:
    """The tensors of one file, opened anew for every read. `name` is how messages call it.

    Raises `NotFound` for a file that is gone and `DamagedFile` for one that is cut off or malformed.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self._name = path, name
        if not path.is_file():
            raise NotFound(f"{name} is not there any more.")
        try:
            with path.open("rb") as stream:
                self._state = _state(stream)
                header = header_of(stream, name)
                self._start = stream.tell()
        except OSError as error:
            raise DamagedFile(f"{name} is damaged or cannot be read: {error.strerror or error}.") from None
        self.metadata: dict[str, str] = header.pop(METADATA, {})
        self.entries: dict[str, dict[str, Any]] = header
        """Per tensor: `dtype` as the file calls it, `shape`, `data_offsets`."""

    @property
    def state(self) -> FileState:
        """Of the file that is read; another one has another."""
        return str(self.path), *self._state[1:]

    def dtype(self, key: str) -> torch.dtype:
        """The tensor's number format. Raises `IncompatibleFile` for one that this program does not know."""
        code = self.entries[key]["dtype"]
        if code not in _TYPES:
            raise IncompatibleFile(f"{self._name}: {key} is stored as {code}, which is not supported.")
        return _TYPES[code]

    def read(self, key: str, out: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Fill `out` (on the CPU, any number format and layout) with a tensor's rows from row `first` on.

        `out` has the shape of these rows. Returns a sum of all values, float32 []: it is not finite when a value is not, and may overflow where all are.
        Raises `DamagedFile` when the file was changed or cannot be read to the end.
        """
        out = out if out.ndim else out.view(1)
        stored, row = self.dtype(key), math.prod(out.shape[1:])
        plain = out.is_contiguous()
        raw = None if stored == out.dtype and plain else torch.empty(min(len(out), _rows(row)) * row, dtype=stored)
        total = torch.zeros(())
        try:
            with self.path.open("rb", buffering=0) as stream:
                if _state(stream) != self._state:
                    raise DamagedFile(f"{self._name} was changed while it was read.")
                stream.seek(self._start + self.entries[key]["data_offsets"][0] + first * row * stored.itemsize)
                for start in range(0, len(out), _rows(row)):
                    part = out[start : start + _rows(row)]
                    if raw is None:
                        self._bytes(stream, part)
                        total += (part.float() if part.dtype.itemsize == 1 else part).sum()
                    else:
                        piece = raw[: part.numel()].view(part.shape)
                        self._bytes(stream, piece)
                        total += _converted(piece, part)
        except OSError as error:
            raise DamagedFile(f"{self._name} is damaged or cannot be read: {error.strerror or error}.") from None
        return total

    def _bytes(self, stream: BinaryIO, into: torch.Tensor) -> None:
        """Fill a contiguous tensor."""
        wanted = into.view(-1).view(torch.uint8).numpy().data
        while wanted:
            count = stream.readinto(wanted)  # type: ignore[attr-defined]
            if not count:
                raise DamagedFile(f"{self._name} is damaged: it was cut off while it was read.")
            wanted = wanted[count:]


def _rows(row: int) -> int:
    """Rows of `row` elements in a piece."""
    return max(1, PIECE // max(1, row))


def _converted(piece: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Put `piece` into `out`, which may have another number format and layout; a sum that is not finite when a value of `out` is not."""
    if piece.dtype == torch.float16 and out.dtype == torch.bfloat16:
        # By way of float32 torch converts, and sums, with vector instructions. What float16 holds stays finite in bfloat16.
        wide = piece.float()
        total, piece = wide.sum(), wide if out.is_contiguous() else wide.to(out.dtype)
    else:
        piece = piece.to(out.dtype)
        total = piece.sum()
    out.copy_(piece)
    return total


def _state(stream: BinaryIO) -> tuple[int, int, int]:
    """What tells one state of a file from another."""
    found = os.fstat(stream.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns
