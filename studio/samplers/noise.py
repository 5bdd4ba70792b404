"""The noise of a batch: every picture has its own generator, so that a batch equals the same pictures made one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from studio.errors import InvalidRequest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from studio.samplers.types import StepNoise
    from studio.schema.request import RngSource

Shape = tuple[int, int, int]

NEARLY_PARALLEL = 0.9995
"""Above this mean cosine `slerp` mixes linearly."""


class Generator(Protocol):
    """A seeded stream of normal tensors."""

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        """The next tensor of standard normal numbers, float32."""
        ...


class ImageNoise:
    """Start noise, later draws and Brownian paths of a batch.

    The rules are A1111's: draw 0 is the start noise; with `ensd` the later draws come from generators seeded seed + ensd; a
    variation is mixed into the start noise only; every generator gives exactly one tensor of `shape` for draw 0, so the later
    draws do not depend on variation or resizing.

    Args:
        seeds: one per picture, 0…2⁶⁴ − 1.
        shape: latents of one picture, [C, h, w].
        source: "CPU" draws on the CPU (the same everywhere), "NV" computes what an NVIDIA card would draw, "GPU" draws on `device`.
        device: where the tensors are wanted.
        dtype: their format; drawing is always in float32.
        ensd: eta noise seed delta; 0 keeps the generators.
        subseeds: variation seed of each picture; empty for none.
        subseed_strength: 0 is the seed's noise, 1 the subseed's.
        resize_from: [h, w] of the latents whose noise is to be placed in the middle of this one.

    Raises:
        InvalidRequest: no seeds, or another number of subseeds than of seeds.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Shape,
        *,
        source: RngSource = "CPU",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        ensd: int = 0,
        subseeds: Sequence[int] = (),
        subseed_strength: float = 0.0,
        resize_from: tuple[int, int] | None = None,
    ) -> None:
        if not seeds:
            raise InvalidRequest("Noise needs at least one seed.", field="seed")
        if subseeds and len(subseeds) != len(seeds):
            raise InvalidRequest(f"There are {len(subseeds)} variation seeds for {len(seeds)} seeds.", field="subseed")
        self._seeds = tuple(seeds)
        self._shape = shape
        self._source = source
        self._device = device
        self._dtype = dtype
        self._subseeds = tuple(subseeds) if subseed_strength else ()
        self._subseed_strength = subseed_strength
        self._old_shape = (shape[0], *resize_from) if resize_from else shape
        first = [self._generator(seed) for seed in self._seeds]
        self._start = [self._start_of(i, generator) for i, generator in enumerate(first)]
        self._later = [self._generator(seed + ensd) for seed in self._seeds] if ensd else first

    def start(self) -> Tensor:
        """The start noise, [B, C, h, w]. The same at every call."""
        return self._stack(self._start)

    def draw(self) -> Tensor:
        """The next noise, [B, C, h, w]; another at every call."""
        return self._stack([generator.randn(self._shape) for generator in self._later])

    def skip(self, count: int) -> None:
        """Pass over the next `count` draws."""
        for _ in range(count):
            self.draw()

    def brownian(self, sigma_min: float, sigma_max: float) -> StepNoise:
        """Noise from one Brownian path per picture over [`sigma_min`, `sigma_max`], the picture's seed being its entropy."""
        from studio.samplers.brownian import BrownianTree

        def normal(seed: int) -> Tensor:
            return self._generator(seed).randn(self._shape)

        return _PathNoise(
            [BrownianTree(sigma_min, sigma_max, seed, normal).increment for seed in self._seeds], self._stack
        )

    def _start_of(self, i: int, generator: Generator) -> Tensor:
        """Draw 0 of picture `i`; takes one tensor of the new shape from its generator."""
        own = generator.randn(self._shape)
        resized = self._old_shape != self._shape
        noise = self._generator(self._seeds[i]).randn(self._old_shape) if resized else own
        if self._subseeds:
            variation = self._generator(self._subseeds[i]).randn(self._old_shape)
            noise = slerp(self._subseed_strength, noise, variation)
        return _pasted(noise, own) if resized else noise

    def _generator(self, seed: int) -> Generator:
        if self._source == "NV":
            from studio.samplers.philox import PhiloxGenerator

            return PhiloxGenerator(seed)
        return _TorchGenerator(seed, self._device if self._source == "GPU" else "cpu")

    def _stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """The batch where it is wanted. To a CUDA card it travels from pinned memory, so that drawing does not wait for the steps before: torch
        keeps that memory until it has been read."""
        import torch

        drawn = torch.stack(list(tensors))
        if torch.device(self._device).type == "cuda" and drawn.device.type == "cpu":
            return drawn.to(dtype=self._dtype).pin_memory().to(self._device, non_blocking=True)
        return drawn.to(device=self._device, dtype=self._dtype)


class _TorchGenerator:
    """torch's own generator of a device."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        import torch

        self._generator = torch.Generator(device).manual_seed(seed)

    def randn(self, shape: tuple[int, ...]) -> Tensor:
        import torch

        return torch.randn(shape, generator=self._generator, device=self._generator.device, dtype=torch.float32)


class _PathNoise:
    """Increments of a batch's Brownian paths, divided by the square root of the distance so that their variance is 1."""

    def __init__(
        self, paths: Sequence[Callable[[float, float], Tensor]], stack: Callable[[Sequence[Tensor]], Tensor]
    ) -> None:
        self._paths = paths
        self._stack = stack

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        low, high = min(sigma, sigma_next), max(sigma, sigma_next)
        increments = self._stack([path(low, high) for path in self._paths])
        sign = 1.0 if sigma < sigma_next else -1.0
        return increments * sign / math.sqrt(high - low)


def slerp(strength: float, low: Tensor, high: Tensor) -> Tensor:
    """Mix two noise tensors so that the result is normal noise again: spherical interpolation along dimension 1.

    Dimension 1 of [C, h, w] is the height, so each channel and column is turned by its own angle; A1111 does so, and pictures made
    with a variation seed depend on it. For nearly parallel inputs the mix is linear and, there too, with the roles swapped.

    Args:
        strength: 0 gives `low`, 1 gives `high`.
        low, high: tensors [C, h, w].
    """
    low_unit = low / low.norm(dim=1, keepdim=True)
    high_unit = high / high.norm(dim=1, keepdim=True)
    dot = (low_unit * high_unit).sum(1)
    if float(dot.mean()) > NEARLY_PARALLEL:
        return low * strength + high * (1 - strength)
    omega = dot.acos()
    sine = omega.sin()
    low_share = (((1 - strength) * omega).sin() / sine).unsqueeze(1)
    high_share = ((strength * omega).sin() / sine).unsqueeze(1)
    mixed: Tensor = low_share * low + high_share * high
    return mixed


def _pasted(noise: Tensor, background: Tensor) -> Tensor:
    """`noise` in the middle of `background`, cropped where it is larger; both [C, h, w]."""
    rows_to, rows_from = _overlap(noise.shape[1], background.shape[1])
    columns_to, columns_from = _overlap(noise.shape[2], background.shape[2])
    result = background.clone()
    result[:, rows_to, columns_to] = noise[:, rows_from, columns_from]
    return result


def _overlap(old: int, new: int) -> tuple[slice, slice]:
    """Where a centred length `old` meets a length `new`: the part of the new, the part of the old."""
    offset = (new - old) // 2
    if offset >= 0:
        return slice(offset, offset + old), slice(0, old)
    width = old + 2 * offset
    return slice(0, width), slice(-offset, -offset + width)
