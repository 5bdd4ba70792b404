"""RetinaFace with ResNet-50: where a picture may have faces, and where their eyes, nose and corners of the mouth are.

Deng et al., "RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild", 2020. Written after facexlib
(https://github.com/xinntao/facexlib, MIT) and the names that torchvision gives the weights of a ResNet; every size is read off the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate, max_pool2d, relu

Shapes = Mapping[str, tuple[int, ...]]
Answers = tuple[Tensor, Tensor, Tensor]
ANCHORS = 2
"""Sizes of face that are looked for at every place of a level."""
LEVELS = 3
EPSILON = 1e-5


class RetinaFace(nn.Module):
    """The network that fits `shapes`, the shapes of a file's weights by name. Raises KeyError where they are those of another one."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.body = _ResNet(shapes)
        width = shapes["fpn.output1.0.weight"][0]
        self.fpn = _Pyramid([shapes[f"fpn.output{i + 1}.0.weight"][1] for i in range(LEVELS)], width)
        self.ssh1, self.ssh2, self.ssh3 = (_Context(width) for _ in range(LEVELS))
        self.ClassHead = nn.ModuleList(_Head(width, 2) for _ in range(LEVELS))
        self.BboxHead = nn.ModuleList(_Head(width, 4) for _ in range(LEVELS))
        self.LandmarkHead = nn.ModuleList(_Head(width, 10) for _ in range(LEVELS))

    def forward(self, picture: Tensor) -> Answers:
        """For a picture [1, 3, H, W], BGR in 0..255 less the mean colour, and each of its N anchors, level by level in reading order:

        corrections of the box [N, 4], probability of a face [N], corrections of five landmarks [N, 10].
        """
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        features = [context(level) for context, level in zip(contexts, self.fpn(self.body(picture)), strict=True)]

        def asked(heads: nn.ModuleList) -> Tensor:
            return torch.cat([head(level) for head, level in zip(heads, features, strict=True)])

        return asked(self.BboxHead), asked(self.ClassHead).softmax(1)[:, 1], asked(self.LandmarkHead)


class _ResNet(nn.Module):
    """The features of a ResNet's last three stages."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        width = shapes["body.conv1.weight"][0]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = _Norm(width)
        for number in range(1, 5):
            stage = f"body.layer{number}"
            blocks = []
            for i in count():
                if f"{stage}.{i}.conv1.weight" not in shapes:
                    break
                inner = shapes[f"{stage}.{i}.conv1.weight"][0]
                outer = shapes[f"{stage}.{i}.conv3.weight"][0]
                blocks.append(_Bottleneck(width, inner, outer, stride=2 if i == 0 and number > 1 else 1, first=i == 0))
                width = outer
            self.add_module(f"layer{number}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        levels = []
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            levels.append(x)
        return levels[1:]


class _Bottleneck(nn.Module):
    def __init__(self, before: int, inner: int, outer: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 1, bias=False), _Norm(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False), _Norm(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outer, 1, bias=False), _Norm(outer)
        self.downsample = _conv(before, outer, 1, stride=stride) if first else None

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return relu(self.bn3(self.conv3(x)) + around)


class _Pyramid(nn.Module):
    """Features of the coarser levels added to those of the finer."""

    def __init__(self, before: list[int], width: int) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (_conv(inner, width, 1) for inner in before)
        self.merge1, self.merge2 = _conv(width, width, 3), _conv(width, width, 3)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        first, second, third = levels
        third = relu(self.output3(third))
        second = relu(self.output2(second))
        second = relu(self.merge2(second + interpolate(third, size=second.shape[2:], mode="nearest")))
        first = relu(self.output1(first))
        first = relu(self.merge1(first + interpolate(second, size=first.shape[2:], mode="nearest")))
        return [first, second, third]


class _Context(nn.Module):
    """What lies around, seen through windows of 3, 5 and 7 (SSH, Najibi et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3X3 = _conv(width, half, 3)
        self.conv5X5_1, self.conv5X5_2 = _conv(width, quarter, 3), _conv(quarter, quarter, 3)
        self.conv7X7_2, self.conv7x7_3 = _conv(quarter, quarter, 3), _conv(quarter, quarter, 3)

    def forward(self, x: Tensor) -> Tensor:
        begun = relu(self.conv5X5_1(x))
        wide = self.conv7x7_3(relu(self.conv7X7_2(begun)))
        return relu(torch.cat([self.conv3X3(x), self.conv5X5_2(begun), wide], dim=1))


class _Head(nn.Module):
    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, ANCHORS * values, 1)
        self._values = values

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.conv1x1(x)
        return answers.permute(0, 2, 3, 1).reshape(-1, self._values)


class _Norm(nn.Module):
    """Batch normalisation by what was counted while training; all that it has are weights of the file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias, self.running_mean, self.running_var = (
            nn.Parameter(torch.empty(width)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPSILON)


def _conv(inner: int, outer: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False), _Norm(outer))
