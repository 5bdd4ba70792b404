"""The normal numbers of an NVIDIA card, computed on the CPU.

torch on CUDA draws with Philox 4×32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") and turns two of its
four words into a normal number by the Box-Muller formula of cuRAND. One draw of a tensor is one value of the counter's first
word; the element's index is its third. That holds while every element has a thread of its own, that is up to some 100,000
elements; no latent of one picture is larger.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Words = NDArray[np.uint32]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and √3 − 1
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class PhiloxGenerator:
    """A stream of normal tensors, such as ``torch.randn`` on CUDA gives after ``manual_seed(seed)``.

    Args:
        seed: 0…2⁶⁴ − 1; only the low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        self._offset = 0

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        """The next tensor of `shape`, float32 on the CPU."""
        import torch

        n = math.prod(shape)
        zeros = np.zeros(n, np.uint32)
        counter = (np.full(n, self._offset, np.uint32), zeros, np.arange(n, dtype=np.uint32), zeros)
        self._offset += 1
        first, second, _, _ = _philox4x32(counter, self._key)
        return torch.from_numpy(_box_muller(first, second).reshape(shape))


def _philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four random words for each counter: ten rounds of two 32×32 → 64 bit products."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HALF).astype(np.uint32) ^ c1 ^ np.uint32(k0),
            (p1 & _LOW).astype(np.uint32),
            (p0 >> _HALF).astype(np.uint32) ^ c3 ^ np.uint32(k1),
            (p0 & _LOW).astype(np.uint32),
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _box_muller(x: Words, y: Words) -> NDArray[np.float32]:
    """√(−2·log u)·sin v, with u in (0, 1) and v in (0, 2π) from two words: cuRAND's formula and float32 constants.

    Computed in float64, as the emulation in A1111 does; a card computes in float32 and differs from it by about 1e-6.
    """
    u = (x + 0.5) * 2**-32
    v = (y + 0.5) * float(np.float32(2**-31 * math.pi))
    normal: NDArray[np.float64] = np.sqrt(-2 * np.log(u)) * np.sin(v)
    return normal.astype(np.float32)
