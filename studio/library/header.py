"""The header of a .safetensors file, read with plain reads (never mapped: a mapped file that shrinks kills the process).

Format: 8 bytes little-endian length n, n bytes of JSON (tensor name -> dtype, shape, data_offsets; `__metadata__` -> strings),
then the tensors' bytes without holes (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from studio.errors import DamagedFile

MAX_HEADER = 32 * 1024 * 1024
"""Bytes. The format allows 100 MB; the largest models need 1 MB, LoRAs with much metadata a few."""
METADATA = "__metadata__"
_LENGTH_BYTES = 8
_LARGEST = 2**64 - 1

_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


def read_header(path: Path) -> dict[str, Any]:
    """The parsed header, every entry checked against the size of the file.

    Stricter than the safetensors library in one point: a name that stands there twice is refused. Raises `DamagedFile`
    naming the file and the reason, `OSError` where it cannot be opened.
    """
    with path.open("rb") as stream:
        return header_of(stream, path.name)


def header_of(stream: BinaryIO, name: str) -> dict[str, Any]:
    """`read_header` of an open file that messages call `name`; afterwards `stream` stands where the tensors' bytes begin."""
    size = stream.seek(0, 2)
    stream.seek(0)
    try:
        length = _length(stream, size)
        header = _parsed(stream.read(length))
        _check_metadata(header)
        _check_tensors(header, size - _LENGTH_BYTES - length)
    except ValueError as error:
        raise DamagedFile(f"{name} is damaged: {error}.") from None
    return header


def data_start(path: Path) -> int:
    """Where the tensors' bytes begin, from the length alone. Raises as `read_header` does."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        try:
            return _LENGTH_BYTES + _length(stream, size)
        except ValueError as error:
            raise DamagedFile(f"{path.name} is damaged: {error}.") from None


def _length(stream: BinaryIO, size: int) -> int:
    """The header's length in bytes, known to be inside the file."""
    if size < _LENGTH_BYTES:
        raise ValueError(f"it has only {size} bytes")
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header claims {length:,} bytes, at most {MAX_HEADER:,} are read")
    if length > size - _LENGTH_BYTES:
        raise ValueError(f"it is cut off inside its header ({size:,} of {length + _LENGTH_BYTES:,} bytes)")
    return length


def _parsed(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise ValueError("its header is no JSON object")
    try:
        header = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("its header is no UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its header is no JSON ({error.msg} at character {error.pos:,})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"its header names {_shown(name)} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"its header is no JSON ({name})")


def _check_metadata(header: dict[str, Any]) -> None:
    """Metadata is text by text; null counts as none."""
    metadata = header.get(METADATA, {})
    if metadata is None:
        del header[METADATA]
    elif not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")


def _check_tensors(header: Mapping[str, Any], room: int) -> None:
    """Each tensor has the bytes its shape needs, and together they fill the `room` behind the header without a gap."""
    spans = sorted((*_span(name, entry), name) for name, entry in header.items() if name != METADATA)
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise ValueError(f"the bytes of {_shown(name)} {'overlap with others' if start < end else 'leave a gap'}")
        end = stop
    if end > room:
        raise ValueError(f"it is cut off: {room:,} of {end:,} bytes of weights are there")
    if end < room:
        raise ValueError(f"{room - end:,} bytes follow its last tensor")


def _span(name: str, entry: object) -> tuple[int, int]:
    """First byte and byte after the last of one tensor, relative to the first tensor's."""
    if not isinstance(entry, dict):
        raise ValueError(f"{_shown(name)} is no tensor")
    bits, shape, offsets = _BITS.get(str(entry.get("dtype"))), entry.get("shape"), entry.get("data_offsets")
    if bits is None:
        raise ValueError(f"{_shown(name)} has the unknown type {_shown(str(entry.get('dtype')))}")
    if not isinstance(shape, list) or not all(_whole(side) for side in shape):
        raise ValueError(f"{_shown(name)} has no proper shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(offset) for offset in offsets):
        raise ValueError(f"{_shown(name)} has no proper place")
    needed = _product(shape) * bits
    if needed % 8 or needed // 8 != offsets[1] - offsets[0]:
        raise ValueError(f"{_shown(name)} has {offsets[1] - offsets[0]:,} bytes, which does not fit its shape and type")
    return offsets[0], offsets[1]


def _product(shape: list[int]) -> int:
    """Number of elements; refused where the format's 64 bits cannot hold it."""
    product = 1
    for side in shape:
        product *= side
        if product > _LARGEST:
            raise ValueError("a shape is too large")
    return product


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}…")
