"""Memory for the weights of a module: few large blocks, cut up.

A large block comes straight from the system and goes straight back when its last weight is gone. Weights that are allocated one by one come
from the C library's heap, which keeps what lies between things that are still in use: a process that changes models would grow.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence

import torch

BLOCK = 1 << 26
"""Bytes of a block: more than what glibc ever takes from its heap (32 MiB), little beside a model."""
_ALIGNMENT = 64
_MADV_HUGEPAGE = 14
_PAGE = 4096


class Room:
    """Places for weights that need `total` bytes together, counted with `size`; without a total each gets memory of its own."""

    def __init__(self, total: int = 0) -> None:
        self._usual = min(BLOCK, total)
        self._block = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def size(shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes that a tensor takes here."""
        return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT

    def take(self, shape: Sequence[int], dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
        """A tensor without values on the CPU; one of four axes is laid out as `layout` says, as `Module.to(memory_format=...)` would."""
        return laid_out(self._bytes(self.size(shape, dtype)).view(dtype), shape, layout)

    def _bytes(self, size: int) -> torch.Tensor:
        if size >= self._usual:
            return _pages(size)
        if size > len(self._block):
            self._block = _pages(self._usual)
        out, self._block = self._block[:size], self._block[size:]
        return out


def laid_out(memory: torch.Tensor, shape: Sequence[int], layout: torch.memory_format) -> torch.Tensor:
    """The beginning of `memory` as a tensor of `shape`; one of four axes is laid out as `layout` says."""
    flat = memory[: math.prod(shape)]
    if len(shape) != 4 or layout == torch.contiguous_format:
        return flat.view(tuple(shape))
    filters, channels, height, width = shape
    return flat.view(filters, height, width, channels).permute(0, 3, 1, 2)


def _pages(size: int) -> torch.Tensor:
    """`size` bytes; a large block in huge pages where Linux gives them when asked, which are handed out sooner than many small ones."""
    block = torch.empty(size, dtype=torch.uint8)
    if sys.platform == "linux" and size >= BLOCK:
        start = -(-block.data_ptr() // _PAGE) * _PAGE
        length = (block.data_ptr() + size - start) // _PAGE * _PAGE
        # What it answers does not matter: this is a wish.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return block
