"""Upscaler models: RRDBNet (ESRGAN, Real-ESRGAN) and SRVGGNetCompact, built as their file says; see `studio.families.upscaler_signature`.

Written from the papers: Wang et al., ESRGAN (2018, arXiv:1809.00219), and Real-ESRGAN (2021, arXiv:2107.10833). Pictures are RGB in 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from studio.engine.loading_weights import Filling, Weights, empty
from studio.errors import IncompatibleFile
from studio.families import UpscalerSignature, describe_upscaler
from studio.families.layout import Source
from studio.families.upscaler_signature import COLOURS, CONVOLUTIONS, DENSE_BLOCKS

RESIDUE = 0.2
"""How much of what a block computes is added to what it was given; also the slope of the activations below 0."""


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all that came before; [B, features, h, w] to the same."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * (CONVOLUTIONS - 1) + [features]
        self.convs = nn.ModuleList(_conv(features + i * growth, width) for i, width in enumerate(widths))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        seen = x
        for conv in self.convs[:-1]:
            seen = torch.cat((seen, _bent(conv(seen))), dim=1)
        last: Tensor = self.convs[-1](seen)
        return x + RESIDUE * last


class ResidualBlock(nn.Module):
    """Three dense blocks (RRDB); [B, features, h, w] to the same."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(DenseBlock(features, growth) for _ in range(DENSE_BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        deep: Tensor = self.dense(x)
        return x + RESIDUE * deep


class RRDBNet(nn.Module):
    """[B, 3, H, W] to [B, 3, H · s, W · s]. Sides that the fold does not divide are mirrored on and cut again."""

    def __init__(self, shape: UpscalerSignature) -> None:
        super().__init__()
        features = shape.features
        self._fold = shape.fold
        self._times = shape.enlarges
        self.first = _conv(COLOURS * shape.fold**2, features)
        self.body = nn.Sequential(*(ResidualBlock(features, shape.growth) for _ in range(shape.blocks)))
        self.trunk = _conv(features, features)
        self.ups = nn.ModuleList(_conv(features, features) for _ in range(shape.doublings))
        self.high = _conv(features, features)
        self.last = _conv(features, COLOURS)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        height, width = x.shape[2:]
        folded = functional.pixel_unshuffle(self._even(x), self._fold)
        start: Tensor = self.first(folded)
        found = start + self.trunk(self.body(start))
        for up in self.ups:
            found = _bent(up(functional.interpolate(found, scale_factor=2, mode="nearest")))
        picture: Tensor = self.last(_bent(self.high(found)))
        return picture[:, :, : height * self._times, : width * self._times]

    def _even(self, x: Tensor) -> Tensor:
        below, right = (-side % self._fold for side in x.shape[2:])
        mode = "reflect" if below < x.shape[2] and right < x.shape[3] else "replicate"
        return functional.pad(x, (0, right, 0, below), mode=mode) if below or right else x


class Compact(nn.Module):
    """SRVGGNetCompact: what is missing to the picture with each pixel repeated; [B, 3, H, W] to [B, 3, H · s, W · s]."""

    def __init__(self, shape: UpscalerSignature) -> None:
        super().__init__()
        features, self._times = shape.features, shape.enlarges
        layers: list[nn.Module] = [_conv(COLOURS, features), nn.PReLU(features)]
        for _ in range(shape.blocks):
            layers += [_conv(features, features), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, _conv(features, COLOURS * self._times**2))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        repeated = functional.interpolate(x, scale_factor=self._times, mode="nearest")
        return functional.pixel_shuffle(self.body(x), self._times) + repeated


def load_upscaler(path: Path, device: torch.device) -> tuple[nn.Module, int]:
    """The model in the file, float32, in eval mode, and how many times it enlarges.

    Raises `NotFound`, `DamagedFile`, and `IncompatibleFile` for a file that is no upscaler.
    """
    weights = Weights([path])
    shape = describe_upscaler(weights.header)
    if shape.problem:
        raise IncompatibleFile(f"{path.name} cannot be used: {shape.problem}")
    module: nn.Module = empty(lambda: RRDBNet(shape) if shape.architecture == "rrdb" else Compact(shape), "upscaler")

    def choose(keys: Iterable[str]) -> Mapping[str, Source]:
        return {key: Source(shape.names[key]) for key in keys}

    filled: nn.Module = Filling(module, weights, choose, torch.float32, "upscaler").from_file(device)
    return filled, shape.enlarges


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)


def _bent(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, RESIDUE)
