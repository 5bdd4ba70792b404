"""DeepCache: the deep part of the U-Net is computed at every n-th model call only.

Between two calls of a sampler the features of the lower resolutions hardly change, those of the highest do. On the calls
between, what the last up block is given from below is taken from the last whole call, and only the first down block and
the last up block are computed (Ma et al. 2023, https://arxiv.org/abs/2312.00858, with the cache at the outermost skip).
It is an approximation: `docs/speed.md` has its errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass
class _Kept:
    """Features of a whole call: `below` [R, C, h, w] is what the last up block was given, `call` when that was."""

    states: Tensor
    below: Tensor
    call: int


class DeepCacheUNet:
    """A `UNet` (see `engine/denoise.py`) that computes `unet` as a whole at every `interval`-th call. For one batch.

    Rows that are told something else, or are of another number, have features of their own. None is used that is
    `interval` calls old. Passes with the same tensor of timesteps are one call.
    """

    def __init__(self, unet: UNet2DConditionModel, interval: int) -> None:
        self._unet = unet
        self._interval = interval
        self._call = -1
        self._timesteps: Tensor | None = None
        self._kept: dict[int, _Kept] = {}

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor] | None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool,
    ) -> Any:
        """See `UNet`."""
        if timestep is not self._timesteps:
            self._timesteps = timestep
            self._call += 1
        kept = self._kept.get(id(encoder_hidden_states))  # held below, so that no other tensor gets this id
        if kept is not None and self._call - kept.call < self._interval:
            told = {"encoder_hidden_states": encoder_hidden_states, "cross_attention_kwargs": cross_attention_kwargs}
            return (self._shallow(sample, timestep, told, added_cond_kwargs, kept.below),)
        below: list[Tensor] = []
        hook = self._unet.up_blocks[-1].register_forward_pre_hook(
            lambda block, args, kwargs: below.append(kwargs["hidden_states"]), with_kwargs=True
        )
        try:
            out = self._unet(
                sample,
                timestep,
                encoder_hidden_states,
                added_cond_kwargs=added_cond_kwargs,
                cross_attention_kwargs=cross_attention_kwargs,
                return_dict=return_dict,
            )
        finally:
            hook.remove()
        self._kept = {key: old for key, old in self._kept.items() if self._call - old.call < self._interval}
        self._kept[id(encoder_hidden_states)] = _Kept(encoder_hidden_states, below[0], self._call)
        return out

    def _shallow(
        self,
        sample: Tensor,
        timestep: Tensor,
        told: dict[str, Any],
        added: dict[str, Tensor] | None,
        below: Tensor,
    ) -> Tensor:
        """The outermost blocks alone, with `below` for what lies between them."""
        unet = self._unet
        time = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep))
        extra = unet.get_aug_embed(
            emb=time, encoder_hidden_states=told["encoder_hidden_states"], added_cond_kwargs=added or {}
        )
        time = time if extra is None else time + extra
        x = unet.conv_in(sample)
        _, skips = _run(unet.down_blocks[0], told, hidden_states=x, temb=time)
        last = unet.up_blocks[-1]
        skips = (x, *skips)[: len(last.resnets)]
        x = _run(last, told, hidden_states=below, temb=time, res_hidden_states_tuple=skips)
        out: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
        return out


def _run(block: Any, told: dict[str, Any], **inputs: Any) -> Any:
    """A down or up block, told the prompt where it listens to it."""
    listens = getattr(block, "has_cross_attention", False)
    return block(**inputs, **(told if listens else {}))
