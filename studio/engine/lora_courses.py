"""LoRAs whose weight changes while a picture is painted, as adapters beside the layers of the U-Net.

y = layer(x) + w(step) * (alpha / rank) * up(down(x)), where merging (see `lora`) would change every weight at every step. Where the weight stays the
same, both give the same picture, but for rounding. A DoRA, and a convolution with a core in the middle, have no such short form: their whole difference
from the weight as loaded stands beside it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from studio.engine.lora_targets import Change
from studio.prompt.networks import Course


class Courses:
    """The adapters of one pass; they do nothing until they are attached. Whoever holds them does not hold the layers.

    Args:
        changes: for each LoRA what it does to the U-Net, and its course.
        as_loaded: gives the weight of a change before any LoRA, float32 on `device`.
        device, dtype: of the U-Net's computations.
    """

    def __init__(
        self,
        changes: Iterable[tuple[Sequence[Change], Course]],
        as_loaded: Callable[[Change, torch.device], Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._strengths: list[tuple[Tensor, Course]] = []
        self._adapters: list[tuple[weakref.ref[nn.Module], _Beside]] = []
        self._handles: list[RemovableHandle] = []
        with torch.inference_mode(False):  # strengths are written to outside of inference mode
            for parts, course in changes:
                strength = torch.tensor(course[0][0], device=device)  # a number would be compiled in
                self._strengths.append((strength, course))
                for part in parts:
                    factors = tuple(factor.to(dtype) for factor in _factors(part, as_loaded, device))
                    self._adapters.append((weakref.ref(part.target.layer), _Beside(factors, strength)))

    def __bool__(self) -> bool:
        return bool(self._adapters)

    def at(self, done: int, steps: int) -> None:
        """Let the weights be those at the progress `done` in a run of `steps` steps."""
        for strength, course in self._strengths:
            strength.fill_(weight_at(course, done, steps))

    def attach(self) -> None:
        """Let the layers feel them."""
        self.detach()
        for reference, beside in self._adapters:
            if (layer := reference()) is not None:
                self._handles.append(layer.register_forward_hook(beside))

    def detach(self) -> None:
        """Leave the layers as they are."""
        while self._handles:
            self._handles.pop().remove()


def progress(call: int, *, second_order: bool) -> int:
    """What A1111 shows as its step, from 0, while model call `call`, from 0, is computed: the last step whose first call is done, 0 before any is.

    sd-webui-loractl takes weights by that. `second_order`: two calls a step.
    """
    return max((call + 1) // 2 - 1 if second_order else call - 1, 0)


def weight_at(course: Course, done: int, steps: int) -> float:
    """The weight of `course` at the `progress` `done` of `steps` steps, straight between its points, level before the first and after the last.

    As in sd-webui-loractl, shares are of `steps` - 2, the progress while the last step is computed.
    """
    weights, places = zip(*course, strict=True)
    share = places[-1] <= 1
    place = done / max(steps - 2, 1) if share else done
    return float(np.interp(place, places, weights))


class _Beside:
    """The hook of one layer."""

    def __init__(self, factors: tuple[Tensor, ...], strength: Tensor) -> None:
        self._factors = factors
        self._strength = strength

    def __call__(self, layer: nn.Linear | nn.Conv2d, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        first, *rest = self._factors
        if isinstance(layer, nn.Conv2d):
            found: Tensor = nn.Conv2d._conv_forward(layer, inputs[0], first, None)  # as the layer pads, wrapped or not
            for factor in rest:
                found = functional.conv2d(found, factor)
        else:
            found = functional.linear(inputs[0], first)
            for factor in rest:
                found = functional.linear(found, factor)
        return output + self._strength * found


def _factors(
    change: Change, as_loaded: Callable[[Change, torch.device], Tensor], device: torch.device
) -> tuple[Tensor, ...]:
    """What a layer's input goes through, one after the other: float32, in the form of the layer's own weight, scale included."""
    factors, layer = change.factors, change.target.layer
    shape = layer.weight.shape
    if factors.magnitude is not None:
        return (factors.dora_difference(as_loaded(change, device), change.scale).reshape(shape),)
    if factors.mid is not None:
        return (factors.difference(device).reshape(shape) * change.scale,)
    ones = (1,) * (len(shape) - 2)
    down, up = (factor.to(device, torch.float32) for factor in (factors.down, factors.up))
    return down.reshape(-1, *shape[1:]), up.reshape(shape[0], -1, *ones) * change.scale
