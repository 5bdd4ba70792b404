"""Attention kernels, and the processor through which U-Net and VAE use the one that was chosen.

    attention(q, k, v) = softmax(q kᵀ / sqrt(d)) v          (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)

| kernel | what it is | where it is good |
|---|---|---|
| sdpa | PyTorch's scaled_dot_product_attention, which chooses by itself | CUDA, MPS, float32 on the CPU |
| chunked | a block of query rows at a time through plain matrix products | short formats on the CPU, where SDPA reaches a fifth of what a matrix product does |
| flash | SDPA held to FlashAttention | CUDA, U-Nets only (see `Hardware.prepare`), to be sure that no slower kernel is taken |
| xformers | xformers' memory-efficient attention | CUDA, cards that FlashAttention does not know |

All compute the same; `tests/engine/test_attention.py` bounds how far they differ.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn import Module

KernelName = Literal["sdpa", "chunked", "flash", "xformers"]
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q, k, v) [B, heads, tokens, d] -> [B, heads, tokens of q, d]."""
Change = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A context [B, T, D] -> what keys, and what values, are made of."""
Project = Callable[[Any, Tensor], tuple[Tensor, Tensor]]
"""(attention module, context) -> keys and values."""

ROWS = 512
"""Query rows that are scored at once: the scores of a block then stay in the processor's cache."""
_ALL_AT_ONCE = ROWS * ROWS
"""Scores per head up to which all heads go through one batched product."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own choice of kernel."""
    return functional.scaled_dot_product_attention(q, k, v)


def chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Matrix products over `ROWS` query rows of one head at a time; scores and softmax in the tensors' own format."""
    batch, heads, rows, width = q.shape
    q, k, v = (x.reshape(batch * heads, -1, width) for x in (q * width**-0.5, k, v))
    if rows * k.shape[1] <= _ALL_AT_ONCE:
        out = torch.bmm(torch.softmax(torch.bmm(q, k.mT), dim=-1), v)
    else:
        out = torch.empty_like(q)
        for head in range(batch * heads):
            for start in range(0, rows, ROWS):
                scores = torch.mm(q[head, start : start + ROWS], k[head].mT)
                torch.mm(torch.softmax(scores, dim=-1), v[head], out=out[head, start : start + ROWS])
    return out.reshape(batch, heads, rows, width)


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention or, for a head width that it does not know, nothing: PyTorch then raises RuntimeError."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return functional.scaled_dot_product_attention(q, k, v)


def xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """xformers reads [B, tokens, heads, d]."""
    from xformers.ops import memory_efficient_attention

    out: Tensor = memory_efficient_attention(*(x.transpose(1, 2).contiguous() for x in (q, k, v)))
    return out.transpose(1, 2)


KERNELS: Mapping[KernelName, Kernel] = {"sdpa": sdpa, "chunked": chunked, "flash": flash, "xformers": xformers}


class TextProjections:
    """Keys and values that the cross-attention layers make of the prompts: the same at every step, so computed once.

    For one pass, during which no weight changes. Those of the last `KEPT` tensors of text states are held.
    """

    KEPT = 4
    """Prompt and negative prompt apart, and both again where wordings alternate."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]] = OrderedDict()

    def of(self, attn: Any, states: Tensor, make: Project) -> tuple[Tensor, Tensor]:
        """Keys and values [B, T, C] of layer `attn` for text states [B, T, D], which `make` makes where they are not kept."""
        if id(states) not in self._kept:
            self._kept[id(states)] = (states, {})  # held, so that no other tensor gets this id
            if len(self._kept) > self.KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(id(states))
        made = self._kept[id(states)][1]
        if id(attn) not in made:
            made[id(attn)] = make(attn, states)
        return made[id(attn)]


class KernelProcessor:
    """Runs diffusers' `Attention` module with one of the kernels; for self- and cross-attention without masks.

    Norms, residual and output factor are the module's own, as in diffusers' `AttnProcessor2_0`, which is the oracle in the tests.

    Args:
        kernel: what attends.
        change: what keys, and what values, are made of, where that is not the context itself; see `engine/hypernetwork.py`.
    """

    def __init__(self, kernel: Kernel, change: Change | None = None) -> None:
        self.kernel = kernel
        self.change = change

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        projections: TextProjections | None = None,
    ) -> Tensor:
        """[B, N, C] or, in the VAE, [B, C, H, W], to the same shape. Raises `ValueError` for a mask.

        `projections` come through the U-Net's `cross_attention_kwargs`.
        """
        if attention_mask is not None:
            raise ValueError("no model that is painted with here masks its attention")
        shape, x = hidden_states.shape, hidden_states
        if x.ndim == 4:
            x = x.flatten(2).mT
        if attn.group_norm is not None:
            x = attn.group_norm(x.mT).mT
        if encoder_hidden_states is not None and projections is not None:
            keys, values = projections.of(attn, encoder_hidden_states, self._projected)
        else:
            keys, values = self._projected(attn, x if encoder_hidden_states is None else encoder_hidden_states)
        q, k, v = (self._split(part, attn.heads) for part in (attn.to_q(x), keys, values))
        out: Tensor = attn.to_out[0](self.kernel(q, k, v).transpose(1, 2).flatten(2))
        if len(shape) == 4:
            out = out.mT.reshape(shape)
        if attn.residual_connection:
            out = out + hidden_states
        return out if attn.rescale_output_factor == 1 else out / attn.rescale_output_factor

    def _projected(self, attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context."""
        for_keys, for_values = (context, context) if self.change is None else self.change(context)
        return attn.to_k(for_keys), attn.to_v(for_values)

    @staticmethod
    def _split(x: Tensor, heads: int) -> Tensor:
        """[B, N, heads * d] to [B, heads, N, d]."""
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


# diffusers asks every layer at every call which arguments its processor takes; reading them off the function anew costs
# three times as much as looking them up, and small models feel it.
KernelProcessor.__call__.__signature__ = inspect.signature(KernelProcessor.__call__)  # type: ignore[attr-defined]


def install(name: KernelName, *modules: Module) -> None:
    """Let the modules attend with kernel `name`."""
    processor = KernelProcessor(KERNELS[name])
    for module in modules:
        module.set_attn_processor(processor)  # type: ignore[operator]
