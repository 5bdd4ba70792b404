"""Weights in eight bits: those of linear layers and convolutions lie in memory as float8 (e4m3fn) and become the computing format at each use.

A weight then takes one byte instead of two, at a price: a float8 has a sign, four bits of exponent and three of fraction, so a weight is off by up
to 1/16 of its size, and the smallest step is 2^-9. What is computed with the rounded weights is computed as ever: input, output and sums are in the
computing format. That is AUTOMATIC1111's `FP8 weight`; as there, weights and biases of the U-Net and the text encoders are rounded, once,
from what the file holds, and norms, token tables and the VAE are not.

A LoRA is small beside these steps. Copies in half precision may be kept in the machine's own memory, for LoRAs to be merged into before it is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from studio.errors import InvalidRequest
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest, in_eight_bits

FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Storage:
    """How the weights of a checkpoint lie in memory: in eight bits or as they are computed with; `halves` are kept for LoRAs."""

    eight_bit: bool = False
    halves: bool = False

    @staticmethod
    def of(resolved: ResolvedRequest, model: ModelInfo) -> Storage:
        """What a request asks for of one of its checkpoints."""
        eight_bit = in_eight_bits(resolved.fp8_weight, model)
        return Storage(eight_bit, eight_bit and resolved.cache_fp16_weight)

    def check(self, device: torch.device) -> None:
        """Raise `InvalidRequest` where `device` has no such numbers."""
        if self.eight_bit and device.type == "mps":
            raise InvalidRequest(
                "fp8_weight: Apple's graphics have no 8-bit numbers. Choose Disable.", field="fp8_weight"
            )

    def bytes_each(self, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes that a weight takes on `device`, where it is computed with in `dtype`."""
        if not self.eight_bit:
            return dtype.itemsize
        beside = torch.half.itemsize if self.halves and device.type == "cpu" else 0
        return FLOAT8.itemsize + beside


PLAIN = Storage()
"""As weights are computed with."""


class EightBitLinear(nn.Linear):
    """A linear layer whose weight and bias are float8; input [..., I] and output [..., O] have the computing format."""

    unrounded: Tensor | None = None
    """The weight in half precision, on the CPU, where such copies are kept."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, with the rounded weights."""
        return functional.linear(input, self.weight.to(input.dtype), _cast(self.bias, input))


class EightBitConv2d(nn.Conv2d):
    """A convolution whose weight and bias are float8; input and output [B, C, H, W] have the computing format."""

    unrounded: Tensor | None = None
    """As in `EightBitLinear`."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`, with the rounded weights."""
        out: Tensor = self._conv_forward(input, self.weight.to(input.dtype), _cast(self.bias, input))
        return out


EightBitLayer = EightBitLinear | EightBitConv2d
_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: EightBitLinear, nn.Conv2d: EightBitConv2d}


def expect_eight_bit(module: nn.Module, *, halves: bool) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Let the linear layers and convolutions of `module` expect float8, which they do not have yet.

    By the name of each weight and bias: what makes it of the float32 that a file is read as. With `halves` it keeps a copy of weights.
    """
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, layer in module.named_modules():
        if type(layer) in _KINDS:
            layer.__class__ = _KINDS[type(layer)]
            keeper = cast(EightBitLayer, layer)
            found[f"{name}.weight"] = partial(_kept, keeper) if halves else rounded
            if keeper.bias is not None:
                found[f"{name}.bias"] = rounded
    return found


def rounded(weight: Tensor) -> Tensor:
    """`weight`, in a longer format, as float8: to the nearest, and what is too large to the largest there is, 448."""
    return weight.to(FLOAT8)


def unrounded(layer: nn.Module) -> Tensor | None:
    """The weight of `layer` before it was rounded, in half precision on the CPU; None where no copy is kept."""
    return layer.unrounded if isinstance(layer, EightBitLayer) else None


def half_bytes(module: nn.Module) -> int:
    """Bytes of the copies in half precision of all layers of `module`."""
    return sum(half.nbytes for layer in module.modules() if (half := unrounded(layer)) is not None)


def _kept(layer: EightBitLayer, weight: Tensor) -> Tensor:
    layer.unrounded = weight.half()
    return rounded(weight)


def _cast(bias: Tensor | None, input: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(input.dtype)
