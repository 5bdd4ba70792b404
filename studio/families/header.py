"""The JSON header of a .safetensors file, read with distrust.

Format: 8 bytes little-endian length, then that many bytes of JSON: tensor name -> dtype, shape, data_offsets, and
`__metadata__` with strings (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Header = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


def shapes(header: Header) -> Shapes:
    """Tensor names and shapes; entries that are no tensors are left out."""
    found: Shapes = {}
    for key, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, Mapping) and key != "__metadata__" else None
        if isinstance(shape, list | tuple) and all(isinstance(size, int) and size >= 0 for size in shape):
            found[key] = tuple(shape)
    return found


def metadata(header: Header) -> dict[str, str]:
    """The strings of `__metadata__`; empty when there is none."""
    entry = header.get("__metadata__")
    pairs = entry.items() if isinstance(entry, Mapping) else ()
    return {str(key): value for key, value in pairs if isinstance(value, str)}


def starts(keys: Iterable[str], prefix: str) -> bool:
    """Whether any key begins with `prefix`."""
    return any(key.startswith(prefix) for key in keys)
