"""Hypernetworks: small networks in front of what attention layers make their keys and values of.

    x_k, x_v = context, context
    for each hypernetwork in turn:   x_k = x_k + m F_k(x_k),   x_v = x_v + m F_v(x_v)
    keys = W_k x_k,   values = W_v x_v

m is its multiplier; F_k and F_v belong to one width and act in every attention layer whose context is that wide: the prompt's states in
cross-attention, the picture's own features in self-attention. F is a row of linear layers, each with an activation (the last one only where the
file says so) and, in some files, a normalisation behind it; dropout does nothing but in training. That is what AUTOMATIC1111 computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as functional
from diffusers.models.attention_processor import Attention
from torch import Tensor

from studio.engine.attention import KernelProcessor
from studio.engine.file_cache import FileCache, FileStamp, file_stamp
from studio.engine.loading_weights import Weights, check_finite
from studio.engine.token_merging import MergingProcessor
from studio.errors import IncompatibleFile
from studio.families.hypernetwork_signature import HALVES, HypernetworkSignature, describe_hypernetwork, layer_key
from studio.families.layout import Source
from studio.families.signature import pickle_problem
from studio.schema.resolved import HypernetworkUse

KEPT_FILES = 4

ACTIVATE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "leakyrelu": functional.leaky_relu,
    "elu": functional.elu,
    "swish": functional.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": functional.celu,
    "gelu": functional.gelu,
    "hardshrink": functional.hardshrink,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "logsigmoid": functional.logsigmoid,
    "mish": functional.mish,
    "relu6": functional.relu6,
    "selu": functional.selu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softshrink": functional.softshrink,
    "softsign": functional.softsign,
    "tanhshrink": functional.tanhshrink,
}
"""By the names of `families.hypernetwork_signature.ACTIVATIONS`."""


@dataclass(frozen=True)
class _Layer:
    weight: Tensor
    bias: Tensor | None
    norm: tuple[Tensor, Tensor | None] | None


@dataclass(frozen=True)
class Half:
    """F_k or F_v of one width."""

    layers: tuple[_Layer, ...]
    activation: str
    activates_output: bool

    def __call__(self, x: Tensor) -> Tensor:
        """F(x), [..., width] to the same shape."""
        for number, layer in enumerate(self.layers, 1):
            x = functional.linear(x, layer.weight, layer.bias)
            if number < len(self.layers) or self.activates_output:
                x = ACTIVATE[self.activation](x)
            if layer.norm is not None:
                x = functional.layer_norm(x, x.shape[-1:], *layer.norm)
        return x


Hypernetwork = Mapping[int, tuple[Half, Half]]
"""Width -> what changes the context of the keys, and of the values."""
Active = tuple[Hypernetwork, float]
"""A hypernetwork and its multiplier."""


class HypernetworkFiles:
    """Reads hypernetworks onto `device` in the format `dtype`; a file is read again only when it changed on disk."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._files: FileCache[Hypernetwork] = FileCache(KEPT_FILES)

    def load(self, uses: Iterable[HypernetworkUse]) -> tuple[Active, ...]:
        """Those of `uses`, in their order. Raises `NotFound`, `DamagedFile`, and `IncompatibleFile` for a file that is none."""
        return tuple((self._kept(use), use.multiplier) for use in uses)

    def forget(self, needed: Iterable[HypernetworkUse]) -> bool:
        """Let go of all but those of `needed`; whether there were any. Raises `NotFound`."""
        return self._files.keep_only({_stamp(use) for use in needed})

    def _kept(self, use: HypernetworkUse) -> Hypernetwork:
        return self._files.of(_stamp(use), partial(self._read, use))

    def _read(self, use: HypernetworkUse) -> Hypernetwork:
        path = Path(use.model.path)
        if path.suffix.lower() != ".safetensors":
            raise IncompatibleFile(pickle_problem(path.name), field="prompt")
        weights = Weights([path])
        signature = describe_hypernetwork(weights.header)
        if signature.problem:
            raise IncompatibleFile(f"Hypernetwork {use.name!r}: {signature.problem}", field="prompt")
        tensors = {key: weights.tensor(Source(key)) for key in weights.shapes}
        check_finite(path.name, tensors)
        placed = {key: tensor.to(self._device, self._dtype) for key, tensor in tensors.items()}
        return {
            width: (_half(placed, signature, width, HALVES[0]), _half(placed, signature, width, HALVES[1]))
            for width in signature.widths
        }


def _stamp(use: HypernetworkUse) -> FileStamp:
    return file_stamp(Path(use.model.path), f"hypernetwork {use.name!r}", "prompt")


class Change:
    """What hypernetworks make of a context of one width."""

    def __init__(self, parts: Sequence[tuple[Half, Half, float]]) -> None:
        self._parts = parts

    def __call__(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, width] to what keys, and what values, are made of; both of the same shape."""
        for_keys = for_values = context
        for keys, values, multiplier in self._parts:
            for_keys = for_keys + multiplier * keys(for_keys)
            for_values = for_values + multiplier * values(for_values)
        return for_keys, for_values


def set_hypernetworks(unet: torch.nn.Module, active: Sequence[Active]) -> None:
    """Let exactly these act in the attention of `unet`; nothing leaves it as it was built.

    Every pass says which, as with `set_merging`, which may stand around it. Only processors that change are exchanged, for compiled blocks
    notice that.
    """
    for attn in _attention(unet):
        merging = attn.processor if isinstance(attn.processor, MergingProcessor) else None
        current = merging.inner if merging else attn.processor
        parts = [(*network[width], m) for network, m in active if (width := attn.to_k.in_features) in network]
        if not parts and getattr(current, "change", None) is None:
            continue
        if not isinstance(current, KernelProcessor):
            raise TypeError("hypernetworks act through the processor of engine/attention.py")
        processor = KernelProcessor(current.kernel, Change(parts) if parts else None)
        if merging:
            merging.inner = processor
        else:
            attn.set_processor(processor)


def acts_in(unet: torch.nn.Module, active: Active) -> bool:
    """Whether any attention layer has a context as wide as one of the hypernetwork's widths."""
    return any(attn.to_k.in_features in active[0] for attn in _attention(unet))


def _attention(unet: torch.nn.Module) -> list[Attention]:
    return [module for module in unet.modules() if isinstance(module, Attention)]


def _half(tensors: Mapping[str, Tensor], signature: HypernetworkSignature, width: int, half: str) -> Half:
    layers = []
    for number in range(signature.layers):
        linear, norm = layer_key(width, half, "linear", number), layer_key(width, half, "norm", number)
        scale = tensors.get(f"{norm}.weight")
        layers.append(
            _Layer(
                tensors[f"{linear}.weight"],
                tensors.get(f"{linear}.bias"),
                None if scale is None else (scale, tensors.get(f"{norm}.bias")),
            )
        )
    return Half(tuple(layers), signature.activation, signature.activates_output)
