"""GFPGAN: a U-Net that reads a damaged face, and a StyleGAN2 decoder that paints it anew and is steered by what the U-Net saw.

Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior", 2021. Written after the "clean" architecture of
https://github.com/TencentARC/GFPGAN (Apache-2.0), which the files of versions 1.2 to 1.4 belong to; every size is read off the weights.
The decoder's noise is the file's own, not drawn anew each time, so that equal faces are restored equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu

Shapes = Mapping[str, tuple[int, ...]]
DECODER = "stylegan_decoder"
SLOPE = 0.2
EPSILON = 1e-8


class Gfpgan(nn.Module):
    """The network that fits `shapes`, the shapes of a file's weights by name. Raises KeyError where they are those of another one.

    `size` is the side in pixels of the faces that it restores, a power of two; 512 for the published files.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        levels = _counted(shapes, "conv_body_down.{}.conv1.weight")
        widths = [shapes[f"conv_body_down.{i}.conv1.weight"][0] for i in range(levels)]
        narrowest = shapes["final_conv.weight"][0]
        self.size = 4 * 2**levels
        self.conv_body_first = nn.Conv2d(3, widths[0], 1)
        ends = [shapes[f"conv_body_down.{i}.conv2.weight"][0] for i in range(levels)]
        self.conv_body_down = nn.ModuleList(_Block(*pair, 0.5) for pair in zip(widths, ends, strict=True))
        self.final_conv = nn.Conv2d(ends[-1], narrowest, 3, padding=1)
        up = [shapes[f"conv_body_up.{i}.conv2.weight"][0] for i in range(levels)]
        self.conv_body_up = nn.ModuleList(_Block(*pair, 2.0) for pair in zip([narrowest, *up], up, strict=False))
        self.stylegan_decoder = _Decoder(shapes, levels)
        self.final_linear = nn.Linear(16 * narrowest, (2 * levels + 2) * self.stylegan_decoder.style)
        steered = [shapes[f"condition_scale.{i}.2.weight"][0] for i in range(levels)]
        self.condition_scale = nn.ModuleList(_condition(*pair) for pair in zip(up, steered, strict=True))
        self.condition_shift = nn.ModuleList(_condition(*pair) for pair in zip(up, steered, strict=True))

    def forward(self, face: Tensor, weight: float) -> Tensor:
        """Faces [B, 3, size, size], RGB in -1..1, restored; values may leave that range. `weight` has no meaning here."""
        x = leaky_relu(self.conv_body_first(face), SLOPE)
        seen: list[Tensor] = []
        for block in self.conv_body_down:
            x = block(x)
            seen.append(x)
        x = leaky_relu(self.final_conv(x), SLOPE)
        styles = self.final_linear(x.flatten(1)).unflatten(1, (-1, self.stylegan_decoder.style))
        conditions: list[tuple[Tensor, Tensor]] = []
        for block, scale, shift in zip(self.conv_body_up, self.condition_scale, self.condition_shift, strict=True):
            x = block(x + seen.pop())
            conditions.append((scale(x), shift(x)))
        decoded: Tensor = self.stylegan_decoder(styles, conditions)
        return decoded


class _Block(nn.Module):
    """Two convolutions with a change of size between them, and a way around."""

    def __init__(self, inner: int, outer: int, factor: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1, bias=False)
        self._factor = factor

    def forward(self, x: Tensor) -> Tensor:
        changed = _resized(leaky_relu(self.conv1(x), SLOPE), self._factor)
        around: Tensor = self.skip(_resized(x, self._factor))
        return leaky_relu(self.conv2(changed), SLOPE) + around


class _Decoder(nn.Module):
    """StyleGAN2's synthesis network, steered at every size but the first: part of the features is scaled and shifted."""

    def __init__(self, shapes: Shapes, levels: int) -> None:
        super().__init__()
        _, first, side, _ = shapes[f"{DECODER}.constant_input.weight"]
        self.style = shapes[f"{DECODER}.style_conv1.modulated_conv.modulation.weight"][1]
        widths = [shapes[f"{DECODER}.style_convs.{2 * i}.modulated_conv.weight"][1] for i in range(levels)]
        self.constant_input = _Constant(first, side)
        self.style_conv1 = _StyledConv(first, first, self.style)
        self.to_rgb1 = _ToRgb(first, self.style)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for inner, outer in zip([first, *widths], widths, strict=False):
            self.style_convs.extend(
                (_StyledConv(inner, outer, self.style, doubles=True), _StyledConv(outer, outer, self.style))
            )
            self.to_rgbs.append(_ToRgb(outer, self.style))
        sides = [side * 2 ** ((i + 1) // 2) for i in range(2 * levels + 1)]
        self.noises = nn.ParameterDict({f"noise{i}": torch.empty(1, 1, n, n) for i, n in enumerate(sides)})

    def forward(self, styles: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Styles [B, 2·levels + 2, style], and (scale, shift) for every size: pictures [B, 3, size, size]."""
        x = self.constant_input.weight.expand(len(styles), -1, -1, -1)
        x = self.style_conv1(x, styles[:, 0], self.noises["noise0"])
        picture: Tensor = self.to_rgb1(x, styles[:, 1])
        for level, (scale, shift) in enumerate(conditions):
            first = 2 * level + 1
            x = self.style_convs[first - 1](x, styles[:, first], self.noises[f"noise{first}"])
            kept = x.shape[1] - scale.shape[1]
            x = torch.cat([x[:, :kept], x[:, kept:] * scale + shift], dim=1)
            x = self.style_convs[first](x, styles[:, first + 1], self.noises[f"noise{first + 1}"])
            picture = self.to_rgbs[level](x, styles[:, first + 2]) + _resized(picture, 2.0)
        return picture


class _Constant(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, side, side))


class _StyledConv(nn.Module):
    def __init__(self, inner: int, outer: int, style: int, *, doubles: bool = False) -> None:
        super().__init__()
        self.modulated_conv = _Modulated(inner, outer, 3, style, normalised=True)
        self.weight = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1, outer, 1, 1))
        self._doubles = doubles

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        x = _resized(x, 2.0) if self._doubles else x
        x = self.modulated_conv(x, style) * 2**0.5 + self.weight * noise + self.bias
        return leaky_relu(x, SLOPE)


class _ToRgb(nn.Module):
    def __init__(self, inner: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = _Modulated(inner, 3, 1, style, normalised=False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        picture: Tensor = self.modulated_conv(x, style) + self.bias
        return picture


class _Modulated(nn.Module):
    """A convolution whose input channels are weighed by a style; where `normalised`, so that each output channel keeps its strength."""

    def __init__(self, inner: int, outer: int, kernel: int, style: int, *, normalised: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(style, inner)
        self.weight = nn.Parameter(torch.empty(1, outer, inner, kernel, kernel))
        self._normalised = normalised

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight * self.modulation(style)[:, None, :, None, None]
        if self._normalised:
            weight = weight * torch.rsqrt(weight.square().sum([2, 3, 4], keepdim=True) + EPSILON)
        batch, outer, inner, kernel, _ = weight.shape
        together = conv2d(
            x.reshape(1, batch * inner, *x.shape[2:]), weight.flatten(0, 1), padding=kernel // 2, groups=batch
        )
        return together.view(batch, outer, *x.shape[2:])


def _condition(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, inner, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(inner, outer, 3, padding=1)
    )


def _resized(x: Tensor, factor: float) -> Tensor:
    return interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _counted(shapes: Shapes, name: str) -> int:
    """How many weights are called `name` with a number in it, from 0 up."""
    return next(i for i in count() if name.format(i) not in shapes)
