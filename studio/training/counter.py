"""Random numbers as a function of (seed, purpose, position): no generator state to save, so a resumed run repeats an unbroken one exactly."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt


def generator(seed: int, purpose: str, position: int) -> np.random.Generator:
    """A fresh generator for one use at one position; different purposes are independent streams."""
    key = blake2b(f"{seed}|{purpose}|{position}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype=np.uint64)))


def batch_indices(seed: int, purpose: str, start: int, count: int, size: int) -> npt.NDArray[np.int64]:
    """Items ``start .. start + count`` of an endless shuffled pass over ``range(size)``: each epoch has its own permutation."""
    positions = np.arange(start, start + count)
    epochs = positions // size
    orders = {
        int(epoch): generator(seed, f"{purpose}/order", int(epoch)).permutation(size) for epoch in np.unique(epochs)
    }
    return np.array(
        [orders[int(epoch)][position % size] for epoch, position in zip(epochs, positions, strict=True)], dtype=np.int64
    )


def choice(rng: np.random.Generator, items: Any) -> Any:
    """One element of a non-empty sequence."""
    return items[int(rng.integers(len(items)))]
