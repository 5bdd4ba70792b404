"""CodeFormer: a face written with the words of a learned codebook, which a transformer picks from what it sees of a damaged one.

Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer", 2022. Built from the paper and from the names and shapes
of the published weights. The weight w of its controllable feature transformation (eq. 5) says how much of the damaged face's own features
goes into the decoder: 0 none, for the strongest effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, pad, scaled_dot_product_attention, silu

Shapes = Mapping[str, tuple[int, ...]]
HEADS = 8
"""Of the transformer's attention; no shape tells."""
GROUPS, GROUP_EPSILON = 32, 1e-6
SLOPE = 0.2
STYLE_EPSILON = 1e-5


class CodeFormer(nn.Module):
    """The network that fits `shapes`, the shapes of a file's weights by name. Raises KeyError where they are those of another one.

    `size` is the side in pixels of the faces that it restores; 512 for the published file.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        places, width = shapes["position_emb"]
        self.encoder = _Blocks(shapes, "encoder", _Halving)
        self.generator = _Blocks(shapes, "generator", _Doubling)
        self.size = math.isqrt(places) * 2 ** sum(isinstance(block, _Halving) for block in self.encoder.blocks)
        words, depth = shapes["quantize.embedding.weight"]
        self.quantize = _Codebook(words, depth)
        self.position_emb = nn.Parameter(torch.empty(places, width))
        self.feat_emb = nn.Linear(shapes["feat_emb.weight"][1], width)
        inner = shapes["ft_layers.0.linear1.weight"][0]
        layers = next(i for i in count() if f"ft_layers.{i}.linear1.weight" not in shapes)
        self.ft_layers = nn.ModuleList(_Layer(width, inner) for _ in range(layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, words, bias=False))
        self.fuse_convs_dict = nn.ModuleDict(
            {side: _Fusion(shapes[f"fuse_convs_dict.{side}.encode_enc.conv2.weight"][0]) for side in _fused(shapes)}
        )

    def forward(self, face: Tensor, weight: float) -> Tensor:
        """Faces [B, 3, size, size], RGB in -1..1, restored; values may leave that range. `weight` is w, 0 to 1."""
        x, seen = face, {}
        for block, following in zip(self.encoder.blocks, [*self.encoder.blocks[1:], None], strict=True):
            x = block(x)
            if isinstance(following, _Halving):
                seen[str(x.shape[-1])] = x
        written = _in_style(self._written(x), x)
        for previous, block in zip([None, *self.generator.blocks], self.generator.blocks, strict=False):
            written = block(written)
            side = str(written.shape[-1])
            if weight > 0 and isinstance(previous, _Doubling) and side in self.fuse_convs_dict:
                written = self.fuse_convs_dict[side](seen[side], written, weight)
        return written

    def _written(self, seen: Tensor) -> Tensor:
        """The words that the transformer picks for the places of features [B, C, h, w], of the same shape."""
        x = self.feat_emb(seen.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        words: Tensor = self.quantize.embedding(self.idx_pred_layer(x).argmax(2))
        return words.transpose(1, 2).reshape(seen.shape)


class _Codebook(nn.Module):
    def __init__(self, words: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, depth)


class _Blocks(nn.Module):
    """A chain of blocks; what each is shows in the names of its weights. `scaled` changes the size."""

    def __init__(self, shapes: Shapes, name: str, scaled: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for number in count():
            stem = f"{name}.blocks.{number}"
            if convolution := shapes.get(f"{stem}.conv1.weight"):
                self.blocks.append(_Residual(convolution[1], convolution[0]))
            elif query := shapes.get(f"{stem}.q.weight"):
                self.blocks.append(_Attention(query[0]))
            elif changed := shapes.get(f"{stem}.conv.weight"):
                self.blocks.append(scaled(changed[0]))
            elif plain := shapes.get(f"{stem}.weight"):
                self.blocks.append(_norm(plain[0]) if len(plain) == 1 else nn.Conv2d(plain[1], plain[0], 3, padding=1))
            else:
                break


class _Residual(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.norm2, self.conv2 = _norm(outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.conv_out = nn.Conv2d(inner, outer, 1) if inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.conv1(silu(self.norm1(x)))
        changed = self.conv2(silu(self.norm2(changed)))
        return changed + (x if self.conv_out is None else self.conv_out(x))


class _Attention(nn.Module):
    """Attention of every place to all others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        found = scaled_dot_product_attention(query, key, value)
        changed: Tensor = self.proj_out(found.transpose(1, 2).reshape(x.shape))
        return x + changed


class _Halving(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(pad(x, (0, 1, 0, 1)))
        return halved


class _Doubling(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class _Layer(nn.Module):
    """A transformer layer that knows places: these are added to queries and keys, not to values."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        normed = self.norm1(x)
        placed = normed + places
        x = x + self.self_attn(placed, placed, normed, need_weights=False)[0]
        changed: Tensor = self.linear2(gelu(self.linear1(self.norm2(x))))
        return x + changed


class _Fusion(nn.Module):
    """The decoder's features scaled and shifted by what the encoder saw at that size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = _Residual(2 * width, width)
        self.scale, self.shift = _condition(width), _condition(width)

    def forward(self, seen: Tensor, x: Tensor, weight: float) -> Tensor:
        both = self.encode_enc(torch.cat([seen, x], dim=1))
        changed: Tensor = x * self.scale(both) + self.shift(both)
        return x + weight * changed


def _in_style(x: Tensor, like: Tensor) -> Tensor:
    """`x` with the mean and spread of each of the features [B, C, h, w] of `like` (adaptive instance normalisation)."""
    spread, mean = _statistics(x)
    aim, middle = _statistics(like)
    return (x - mean) / spread * aim + middle


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    return (variance + STYLE_EPSILON).sqrt(), mean


def _condition(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(width, width, 3, padding=1)
    )


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=GROUP_EPSILON)


def _fused(shapes: Shapes) -> list[str]:
    """Sides of the features that are fused, as the weights name them."""
    return sorted({name.split(".")[1] for name in shapes if name.startswith("fuse_convs_dict.")}, key=int)
