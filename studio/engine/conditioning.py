"""From a parsed prompt to what the U-Net is told: chunks of 75 tokens, each encoded alone, weighted, then joined.

Every chunk of 77 ids (start, 75 tokens, end) goes through the text encoders on its own; emphasis acts on each chunk and
each encoder separately; the chunks are then concatenated on the token axis (A1111's convention).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from studio.engine.denoise import Condition
from studio.engine.embeddings import NO_VECTORS, LoadedEmbeddings
from studio.engine.emphasis import apply_emphasis
from studio.engine.text_encoders import TextStates, encode_tokens
from studio.prompt.chunks import Tokenizer, chunk_prompt
from studio.schema.request import Emphasis
from studio.schema.resolved import WeightedText

if TYPE_CHECKING:
    from studio.engine.loading import LoadedModel

CACHED_PROMPTS = 32


class Conditioner:
    """Encodes prompts for one loaded model and remembers the last `remembered` of them.

    The memory belongs to the model object, so a reloaded checkpoint starts with none.
    """

    def __init__(self, model: LoadedModel, tokenizer: Tokenizer, remembered: int = CACHED_PROMPTS) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._remembered = remembered
        self._cache: OrderedDict[Hashable, TextStates] = OrderedDict()

    def encode(
        self,
        text: WeightedText,
        *,
        clip_skip: int,
        emphasis: Emphasis,
        weights: Hashable,
        is_negative: bool,
        embeddings: LoadedEmbeddings = NO_VECTORS,
    ) -> TextStates:
        """Text states of one wording: one [1, T, D] tensor per encoder, T = 77 · chunks, and the pooled vector of the first chunk.

        `weights` stands for those that the text encoders have at the moment, `embeddings` are those that the text may name. For families that
        want it (SDXL), an empty negative prompt gives zeros.
        """
        zero = is_negative and self._model.family.zero_empty_negative and not any(words.strip() for words, _ in text)
        key = (text, clip_skip, emphasis, weights, zero, embeddings.key)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        states = self._encode(text, clip_skip, emphasis, embeddings)
        self._cache[key] = found = states.zeroed() if zero else states
        if len(self._cache) > self._remembered:
            self._cache.popitem(last=False)
        return found

    def condition(
        self,
        states: TextStates,
        width: int,
        height: int,
        crop: tuple[int, int] = (0, 0),
        *,
        is_negative: bool = False,
    ) -> Condition:
        """The U-Net's condition for a pass of `width` x `height` pixels; `crop` (left, top) is what SDXL is told was cut off."""
        added = self._model.added_conditions(states.pooled, width, height, crop, is_negative=is_negative)
        return Condition(states.joined(), added)

    def _encode(
        self, text: WeightedText, clip_skip: int, emphasis: Emphasis, embeddings: LoadedEmbeddings
    ) -> TextStates:
        chunks = chunk_prompt(text, self._tokenizer, embeddings=embeddings.names)
        device = next(self._model.text_encoders[0].parameters()).device
        tokens = torch.tensor([chunk.tokens for chunk in chunks], device=device)
        weights = torch.tensor([chunk.weights for chunk in chunks], device=device)
        encoded = encode_tokens(self._model, tokens, clip_skip, embeddings.placed(chunks))
        pooled = None if encoded.pooled is None else encoded.pooled[:1]
        return TextStates(tuple(_weigh_and_join(emphasis, states, weights) for states in encoded.states), pooled)


def _weigh_and_join(emphasis: Emphasis, states: Tensor, weights: Tensor) -> Tensor:
    """[N, 77, D] of N chunks to [1, N·77, D]."""
    rows = [apply_emphasis(emphasis, row[None], weight[None]) for row, weight in zip(states, weights, strict=True)]
    return torch.cat(rows, dim=1)
