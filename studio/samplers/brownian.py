"""A virtual Brownian tree: one random path per picture that can be asked for its increment between any two levels.

Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations", Algorithm 3. The interval is halved again and again;
the increment of a left half, given that of the whole, is normal (the Brownian bridge), and its random numbers depend only on the
seed and on the place in the tree. So the path does not depend on which levels are asked for, or in which order.

The numbers equal those of torchsde's BrownianTree, which k-diffusion's samplers use: levels are rounded to six decimals, a
node's seed comes from ``numpy.random.SeedSequence`` with its place as the spawn key, sums run in float32 from left to right.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 6
"""Decimals that levels are rounded to; the leaves of the tree are this fine."""
_POOL_SIZE = 24
_CACHE_SIZE = 64  # two paths from the root to a leaf, at about 25 nodes each


class BrownianTree:
    """A Brownian path W over [`start`, `end`].

    Args:
        start: the smallest level.
        end: the largest level.
        seed: entropy of the path.
        normal: gives a tensor of standard normal numbers for a 32-bit seed, always the same one.
    """

    def __init__(self, start: float, end: float, seed: int, normal: Callable[[int], Tensor]) -> None:
        self._start = round(start, DIGITS)
        self._end = round(end, DIGITS)
        self._seed = seed
        self._normal = normal
        first = int(np.random.SeedSequence(seed, pool_size=_POOL_SIZE).generate_state(3)[0])
        self._root = normal(first) * math.sqrt(end - start)
        self._cache: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def increment(self, a: float, b: float) -> Tensor:
        """W(b) − W(a) for a ≤ b; levels outside the interval count as its ends."""
        a = min(max(round(a, DIGITS), self._start), self._end)
        b = min(max(round(b, DIGITS), self._start), self._end)
        if a >= b:
            return self._root * 0
        parts: list[Tensor] = []
        self._collect(a, b, self._start, self._end, 0, 0, self._root, parts)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _collect(
        self, a: float, b: float, start: float, end: float, depth: int, index: int, w: Tensor, parts: list[Tensor]
    ) -> None:
        """Append the increments of the nodes that make up [a, b] inside this node, from left to right.

        Args:
            start, end: the node's interval; a, b: the wanted part of it, inside the node.
            depth, index: the node's place: the index-th from the left among 2^depth.
            w: the node's increment.
        """
        if a == start and b == end:
            parts.append(w)
            return
        # The children's bounds are rounded, the bridge is computed with the rounded midpoint too.
        middle = round(0.5 * (start + end), DIGITS)
        left = self._left_increment(start, middle, end, depth, index, w)
        if a < middle:
            self._collect(a, min(b, middle), start, middle, depth + 1, 2 * index, left, parts)
        if b > middle:
            self._collect(max(a, middle), b, middle, end, depth + 1, 2 * index + 1, w - left, parts)

    def _left_increment(self, start: float, middle: float, end: float, depth: int, index: int, w: Tensor) -> Tensor:
        """The increment of a node's left half: the Brownian bridge at its middle."""
        key = (depth, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        sequence = np.random.SeedSequence(self._seed, spawn_key=(index, depth), pool_size=_POOL_SIZE)
        share = 1 / (end - start)
        left, right = middle - start, end - middle
        noise = self._normal(int(sequence.generate_state(4)[0]))
        increment = left * w * share + math.sqrt(left * right * share) * noise
        self._cache[key] = increment
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return increment
