"""Writing a .safetensors file tensor by tensor, so that a checkpoint that is mapped needs no memory of its size.

Format: see `library/header.py`. Numbers stay in their format; a tensor that shares its memory with another is written out for itself.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from studio.errors import DamagedFile

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
_METADATA = "__metadata__"


def size_of(tensors: Mapping[str, Tensor], name: str) -> int:
    """Bytes of all tensors written out. Raises `DamagedFile`, calling the file `name`, for one that the format has no place for."""
    for key, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in DTYPES
        if not plain:
            raise DamagedFile(
                f"{name} cannot be converted: {key[:80]!r} holds numbers that .safetensors has no place for ({tensor.dtype})."
            )
        if key == _METADATA or not _is_text(key):
            raise DamagedFile(f"{name} cannot be converted: {key[:80]!a} is no name for a tensor.")
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write(stream: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the file into `stream`. Wide numbers come first, so that each tensor begins at a multiple of its elements' size. Raises `OSError`."""
    ordered = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))
    header: dict[str, Any] = {_METADATA: {"format": "pt", **metadata}}
    end = 0
    for key in ordered:
        start, end = end, end + tensors[key].numel() * tensors[key].element_size()
        header[key] = {
            "dtype": DTYPES[tensors[key].dtype],
            "shape": list(tensors[key].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    stream.write(struct.pack("<Q", len(text)) + text)
    for key in ordered:
        if tensors[key].numel():
            stream.write(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
