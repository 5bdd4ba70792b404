"""Token ids through a model's text encoders: the states its U-Net reads, as A1111 takes them.

One file for all families; what differs (layer, padding, pooled text) is data in `FamilySpec.encoders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from studio.engine.loading import LoadedModel
from studio.errors import InvalidRequest
from studio.families.sd1 import END_OF_TEXT
from studio.families.spec import EncoderSpec

_PENULTIMATE = 2


@dataclass(frozen=True)
class TextStates:
    """What the encoders made of N chunks of 77 tokens.

    `states` has one [N, 77, D] for each encoder: emphasis acts on each by itself. `pooled` is [N, P] or None.
    """

    states: tuple[torch.Tensor, ...]
    pooled: torch.Tensor | None

    def joined(self) -> torch.Tensor:
        """[N, 77, sum of D]: the encoders side by side."""
        return self.states[0] if len(self.states) == 1 else torch.cat(self.states, dim=-1)

    def zeroed(self) -> TextStates:
        """All zeros, which SDXL takes for an empty negative prompt."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return TextStates(tuple(torch.zeros_like(state) for state in self.states), pooled)


@dataclass(frozen=True)
class InsertedVectors:
    """Token vectors that are not in the encoders' tables: from place `start` of row `row` on, one [n, width] for each encoder."""

    row: int
    start: int
    vectors: tuple[torch.Tensor, ...]


def encode_tokens(
    model: LoadedModel, tokens: torch.Tensor, clip_skip: int = 1, inserted: Sequence[InsertedVectors] = ()
) -> TextStates:
    """Encode chunks of ids, int64 [N, 77]: begin token, 75 tokens, end token, filled up with end tokens.

    What stands after the first end token is replaced by each encoder's own padding. `clip_skip` n takes the n-th last
    layer where the family listens to it (SD 1.x and 2.x; SDXL always reads the second last). Every chunk is encoded by
    itself. `inserted` stand in for the vectors of the tokens at their places.
    Raises `InvalidRequest` when the encoder has fewer than `clip_skip` layers.
    """
    with torch.no_grad():
        return read_tokens(model, tokens, clip_skip, inserted)


def read_tokens(
    model: LoadedModel, tokens: torch.Tensor, clip_skip: int = 1, inserted: Sequence[InsertedVectors] = ()
) -> TextStates:
    """The same with gradients, for encoders that learn."""
    states, pooled = [], None
    for index, (module, encoder) in enumerate(zip(model.text_encoders, model.family.encoders, strict=True)):
        device = next(module.parameters()).device
        ids = padded(tokens, encoder.pad_token_id).to(device)
        with _vectors_inserted(module, [(each.row, each.start, each.vectors[index]) for each in inserted]):
            output = module(input_ids=ids, output_hidden_states=True)
        states.append(_layer(module, encoder, output.hidden_states, output.last_hidden_state, clip_skip))
        if encoder.pooled:
            pooled = output.text_embeds
    return TextStates(tuple(states), pooled)


@contextmanager
def _vectors_inserted(module: Any, places: Sequence[tuple[int, int, torch.Tensor]]) -> Iterator[None]:
    """While this lasts, the encoder's token vectors [N, L, width] are replaced from (row, start) on.

    CLIP's text models take ids only, so the output of their embedding layer is changed before positions are added.
    """

    def replace(layer: torch.nn.Module, ids: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        for row, start, vectors in places:
            output[row, start : start + len(vectors)] = vectors.to(output)
        return output

    hook = module.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def padded(tokens: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """`tokens` [N, L] with everything after the first end token of a row replaced by `pad_token_id`.

    Encoders that pad with the end token itself get their tokens as they are.
    """
    if pad_token_id == END_OF_TEXT:
        return tokens
    ends = (tokens == END_OF_TEXT).int()
    after = ends.cumsum(dim=1) - ends > 0
    return torch.where(after, pad_token_id, tokens)


def _layer(
    module: torch.nn.Module, encoder: EncoderSpec, hidden: Sequence[torch.Tensor], last: torch.Tensor, clip_skip: int
) -> torch.Tensor:
    """`hidden` are the embeddings and each layer's output before the final norm; `last` is the last one after it."""
    if encoder.layer == "penultimate":
        return hidden[-_PENULTIMATE]
    if not 1 <= clip_skip < len(hidden):
        raise InvalidRequest(
            f"clip_skip = {clip_skip} is not possible: the text encoder has {len(hidden) - 1} layers, so 1 to {len(hidden) - 1} can be chosen.",
            field="clip_skip",
        )
    if clip_skip == 1:
        return last
    # CLIPTextModel lost its inner `text_model` in transformers 5.6.
    inner: Any = getattr(module, "text_model", module)
    result: torch.Tensor = inner.final_layer_norm(hidden[-clip_skip])
    return result
