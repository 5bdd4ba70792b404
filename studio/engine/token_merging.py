"""Token merging: self-attention at full resolution over fewer tokens (ToMe).

Of every 2 x 2 cell of tokens the first one, at the top left, is a target; the others are sources. Each source finds the target
that it is most like, the `count` sources that are most like theirs are merged into it, attention runs over what is left, and what
it gives for a target is given to all that were merged into it (Bolya et al. 2022, https://arxiv.org/abs/2210.09461; for
diffusion Bolya & Hoffman 2023, https://arxiv.org/abs/2303.17604):

    match(s)  = argmax over targets t of  cos(x_s, x_t)           x: the features before the block's norm
    merged    = the `count` sources with the largest cos(x_s, x_match(s))
    target t  = mean of t and of all merged s with match(s) = t

What is merged is AUTOMATIC1111's choice: self-attention only, and only in blocks that have a token for every latent. The paper
draws the target of a cell at random; AUTOMATIC1111 turns that off, so nothing is drawn here, and a picture depends on no other.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

from studio.engine.attention import TextProjections

CELL = 2
"""Tokens per side of the cells that have one target each."""


class TokenGrid:
    """Which of `height` x `width` tokens, in rows, are targets and which sources. Rows and columns over a whole number of cells are sources."""

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        tokens = torch.arange(height * width, device=device).view(height, width)
        self.targets = tokens[: height // CELL * CELL : CELL, : width // CELL * CELL : CELL].flatten()
        """[T]"""
        self.sources = tokens.flatten()[torch.isin(tokens.flatten(), self.targets, invert=True)]
        """[S]"""
        self.places = torch.cat((self.sources, self.targets)).argsort()
        """[S + T]: where each token stands when sources come first, then targets."""

    def __len__(self) -> int:
        return len(self.places)


class Merging:
    """What is merged with what in one batch.

    Args:
        grid: sources and targets, together N.
        features: [B, N, C]; each picture is matched by its own.
        count: how many sources are merged, less than N; all, if there are not so many.
    """

    def __init__(self, grid: TokenGrid, features: Tensor, count: int) -> None:
        # Short formats cannot tell the similarities of neighbours apart. One picture at a time: less memory, and the same sums in any batch.
        directions = functional.normalize(features.float(), dim=2)
        found = [(each[grid.sources] @ each[grid.targets].T).max(dim=1) for each in directions]
        match = torch.stack([indices for _, indices in found])
        order = torch.stack([best for best, _ in found]).argsort(dim=1, descending=True, stable=True)
        self._grid = grid
        self._merged, self._kept = order[:, :count], order[:, count:]
        self._match = match.gather(1, self._merged)
        own = torch.arange(len(grid.targets), device=match.device).expand(len(match), -1)
        kept = self._kept.shape[1]
        place = torch.empty_like(match).scatter_(1, self._merged, self._match + kept)
        place.scatter_(1, self._kept, torch.arange(kept, device=match.device).expand(len(match), -1))
        self._place = torch.cat((place, own + kept), dim=1)[:, grid.places]

    def merge(self, x: Tensor) -> Tensor:
        """[B, N, C] to [B, N - merged, C]: the sources that are kept, then the targets."""
        sources, targets = x[:, self._grid.sources], x[:, self._grid.targets]
        means = (means_in_order if x.is_cuda else means_by_adding)(targets, _rows(sources, self._merged), self._match)
        return torch.cat((_rows(sources, self._kept), means.to(x.dtype)), dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """The way back, [B, N, C]: tokens that were merged get what their target has."""
        return _rows(x, self._place)


def means_by_adding(targets: Tensor, merged: Tensor, match: Tensor) -> Tensor:
    """Means [B, T, C], float32, of every target [B, T, C] with those of `merged` [B, M, C] that have its number in `match` [B, M].

    Several times as fast as `means_in_order` on a processor, where rows are added in their order; Apple graphics have nothing else, and add them
    in an order of their own.
    """
    batch, count, channels = targets.shape
    rows = (match + torch.arange(batch, device=match.device)[:, None] * count).flatten()
    sums = targets.float().reshape(-1, channels).index_add(0, rows, merged.float().reshape(-1, channels))
    sizes = sums.new_ones(batch * count).index_add(0, rows, sums.new_ones(len(rows)))
    return (sums / sizes[:, None]).view(batch, count, channels)


def means_in_order(targets: Tensor, merged: Tensor, match: Tensor) -> Tensor:
    """The same, for cards: sums of rows that stand together, so that they do not depend on the order in which a card's threads come."""
    own = torch.arange(targets.shape[1], device=match.device).expand(len(match), -1)
    order = torch.cat((own, match), dim=1).argsort(dim=1, stable=True)
    sizes = torch.ones_like(own).scatter_add(1, match, torch.ones_like(match))
    together = _rows(torch.cat((targets, merged), dim=1), order).float()
    return torch.segment_reduce(together, "mean", lengths=sizes, axis=1, unsafe=True)


class MergingProcessor:
    """An attention processor that lets `inner` see merged tokens.

    It must be told the features of each call beforehand, by `look`: those before the norm in front of the attention.
    """

    def __init__(self, inner: Any, grid: TokenGrid, count: int) -> None:
        self.inner = inner
        self.hook: Any = None
        """How `look` is called; to be removed with the processor."""
        self._grid = grid
        self._count = count
        self._features: Tensor | None = None

    def look(self, norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook before the norm's forward pass."""
        self._features = inputs[0]

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        projections: TextProjections | None = None,
    ) -> Tensor:
        """As diffusers calls its processors: [B, N, C] to the same shape. Blocks of lower resolution are left as they are.

        It takes what `KernelProcessor` takes, as diffusers warns of all else; self-attention has no `projections`.
        """
        others = (encoder_hidden_states, attention_mask, temb)
        features, self._features = self._features, None
        if features is None or hidden_states.shape[1] != len(self._grid):
            whole: Tensor = self.inner(attn, hidden_states, *others)
            return whole
        merging = Merging(self._grid, features, self._count)
        return merging.unmerge(self.inner(attn, merging.merge(hidden_states), *others))


def has_fine_attention(unet: UNet2DConditionModel) -> bool:
    """Whether there is self-attention at full resolution, so that merging does anything. SDXL has none."""
    return any(getattr(block, "has_cross_attention", False) for block in (unet.down_blocks[0], unet.up_blocks[-1]))


def set_merging(unet: torch.nn.Module, ratio: float, height: int, width: int) -> None:
    """Let self-attention over `height` x `width` latents merge this part of its tokens; a `ratio` of 0 leaves all of it as it was built.

    Costs little; every pass says which. Processors are exchanged, which compiled blocks notice: they are compiled anew.
    """
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    for block in blocks:
        if isinstance(block.attn1.processor, MergingProcessor):
            block.attn1.processor.hook.remove()
            block.attn1.set_processor(block.attn1.processor.inner)
    count = int(height * width * ratio)
    if not count or not blocks:
        return
    grid = TokenGrid(height, width, next(unet.parameters()).device)
    for block in blocks:
        processor = MergingProcessor(block.attn1.processor, grid, count)
        processor.hook = block.norm1.register_forward_pre_hook(processor.look)
        block.attn1.set_processor(processor)


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """x [B, N, C] and rows [B, R] to [B, R, C]."""
    return x.gather(1, rows[:, :, None].expand(-1, -1, x.shape[2]))
