"""Weights of large convolutions in the order in which oneDNN, PyTorch's library for convolutions on processors, reads them.

A convolution with weights in PyTorch's own order is rearranged by oneDNN at every call. Where there are millions of weights and few places
to apply them to, in the deep half of a U-Net, that takes longer than the convolution: of a pass of Stable Diffusion 1.5 at 256 px a fifth of the time.
So such weights are rearranged once: when they are loaded, or, where they came from a mapped file, when they are first used, where oneDNN
would rearrange them anyway. With channels last, as short formats
are laid out here, the results are the same to the bit; else sums are rounded in another order.

Order and padding are oneDNN's secret: a packed weight is a tensor of the layout `torch._mkldnn` with the usual shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils import swap_tensors

PACKED_FROM = 1 << 21
"""Weights of a convolution from which packing is worth while: with fewer there is nothing to win at the sizes that are painted."""
_ANY_PLACES = (8, 8)
"""Height and width of the input that oneDNN is told. What it makes of a weight suits every size."""


def _keep(weight: Tensor) -> None:
    """Memory that Python manages needs no word when it is left."""


class PackedConv2d(nn.Conv2d):
    """A convolution whose weight is packed, from its first use on at the latest; its input and output are ordinary tensors [B, C, H, W]."""

    layout: torch.memory_format
    """Of the output: what it would be with an ordinary weight."""
    release: Callable[[Tensor], None] = staticmethod(_keep)
    """Is told of the ordinary weight that nobody reads any more once it is packed."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.requires_grad:
            raise RuntimeError("a packed convolution passes no gradient on: load the weights unpacked to train")
        self.pack()
        padding = self.padding
        if self.padding_mode != "zeros":  # a picture whose edges meet
            input, padding = functional.pad(input, self._reversed_padding_repeated_twice, self.padding_mode), (0, 0)
        out = torch.ops.mkldnn._convolution_pointwise(
            input, weight, bias, padding, self.stride, self.dilation, self.groups, "none", [], ""
        )
        return cast(Tensor, out.contiguous(memory_format=self.layout))  # oneDNN puts channels last

    def pack(self) -> None:
        """Pack the weight, if it is not yet. The parameter stays the same object."""
        if self.weight.is_mkldnn:
            return
        with torch.inference_mode(False):  # a weight that was made in inference mode could not take a LoRA
            ordinary = self.weight.data
            swap_tensors(self.weight, nn.Parameter(self.packed(ordinary), requires_grad=False))  # type: ignore[no-untyped-call]
        self.release(ordinary)

    @torch.no_grad()
    def packed(self, weight: Tensor) -> Tensor:
        """`weight` [O, I, H, W], an ordinary tensor, as this layer's weight has to be. With channels last it is copied once, otherwise twice."""
        sample = (1, self.in_channels, *_ANY_PLACES)
        out = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, self.stride, self.dilation, self.groups, sample
        )
        return cast(Tensor, out)


def expect_packed(module: nn.Module, layout: torch.memory_format) -> Mapping[str, PackedConv2d]:
    """Let the convolutions of `module` that are worth it expect packed weights, which they do not have yet; by the name of their weight.

    `layout` is that of the other weights of `module`. Convolutions of one place (1x1) are matrix products, where nothing is rearranged.
    """
    found: dict[str, PackedConv2d] = {}
    for name, layer in module.named_modules():
        if type(layer) is nn.Conv2d and layer.weight.numel() >= PACKED_FROM and max(layer.kernel_size) > 1:
            layer.__class__ = PackedConv2d
            packed = found[f"{name}.weight"] = cast(PackedConv2d, layer)
            packed.layout = layout
    return found


def unpacked(weight: Tensor) -> Tensor:
    """The weight as an ordinary tensor; one that is not packed comes back as it is."""
    return weight.to_dense() if weight.is_mkldnn else weight
