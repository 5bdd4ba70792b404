"""What a U-Net predicts, from the modules themselves: the straight-line side of comparisons with whole passes."""

from __future__ import annotations

import torch
from torch import Tensor

from studio.prompt.tokenizer import shipped_tokenizer
from tests.tiny_models import tiny_components


def text_states(family: str, text: str, *, zero: bool) -> tuple[Tensor, Tensor]:
    """Penultimate states [1, 77, D] and pooled text [1, P], from the encoders themselves."""
    states, pooled = [], torch.empty(0)
    for name, pad in (("text_encoder", 49407), ("text_encoder_2", 0)):
        module = tiny_components(family).get(name)
        if module is None:
            continue
        ids = [49406, *shipped_tokenizer().encode(text), 49407]
        out = module(torch.tensor([ids + [pad] * (77 - len(ids))]), output_hidden_states=True)
        states.append(out.hidden_states[-2])
        pooled = out.text_embeds if name == "text_encoder_2" else pooled
    joined = torch.cat(states, dim=-1)
    return (torch.zeros_like(joined), torch.zeros_like(pooled)) if zero else (joined, pooled)


def noise_prediction(
    family: str, x: Tensor, t: float, text: str, negative: str, scale: float, ids: tuple[list[float], list[float]]
) -> Tensor:
    """Classifier-free guidance, each side in a pass of its own."""
    out = []
    for words, told in ((text, ids[0]), (negative, ids[1])):
        states, pooled = text_states(family, words, zero=not words)
        added = {"text_embeds": pooled, "time_ids": torch.tensor([told])}
        out.append(tiny_components(family)["unet"](x, torch.tensor([t]), states, added_cond_kwargs=added).sample)
    return out[1] + scale * (out[0] - out[1])
