"""Token ids to what a CLIP text encoder takes: chunks of 77, that is start, 75 tokens, end. AUTOMATIC1111's rules.

A prompt of more than 75 tokens is encoded chunk by chunk. BREAK fills up the current chunk. When a chunk is full in the
middle of a phrase and its last comma is near, what follows that comma moves on to the next chunk. The name of an embedding becomes as
many places as it has vectors, all in one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from studio.prompt.embeddings import NO_EMBEDDINGS, EmbeddingNames, NamedEmbedding
from studio.prompt.networks import extract_networks
from studio.prompt.tokenizer import BOS, COMMA, EOS, shipped_tokenizer
from studio.prompt.weights import BREAK, BREAK_WEIGHT, parse_weights

CHUNK_LENGTH = 75
COMMA_BACKTRACK = 20
PLACE = 0
"""Id of a token that the vector of an embedding stands in for."""


class Tokenizer(Protocol):
    """Text to ids without start and end, as `ClipTokenizer` does it."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""
        ...


@dataclass(frozen=True)
class PlacedEmbedding:
    """The vectors of `name` replace those of the tokens from `offset` on, counted within the 75."""

    offset: int
    name: str
    vectors: int


@dataclass(frozen=True)
class Chunk:
    """77 ids (start, up to 75 tokens, then end tokens) and 77 weights (1.0 for start, end and padding)."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    embeddings: tuple[PlacedEmbedding, ...] = ()

    def padded_with(self, pad: int) -> tuple[int, ...]:
        """The ids as an encoder with another padding wants them: `pad` after the first end token.

        SD 1.x and SDXL's first encoder pad with the end token itself, that is `tokens`; OpenCLIP, that is SD 2.x and
        SDXL's second encoder, with 0.
        """
        if pad == EOS:
            return self.tokens
        used = self.tokens.index(EOS) + 1
        return self.tokens[:used] + (pad,) * (len(self.tokens) - used)


class _Builder:
    """Collects tokens, closing a chunk whenever it is full."""

    def __init__(self, backtrack: int) -> None:
        self.backtrack = backtrack
        self.chunks: list[Chunk] = []
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.embeddings: list[PlacedEmbedding] = []
        self.last_comma = -1

    def add(self, token: int, weight: float, embedding: NamedEmbedding | None = None) -> None:
        """Append one token, or the places of an embedding whose name begins with it; a full chunk is closed first."""
        self._make_room(token)
        if embedding is None:
            self.tokens.append(token)
            self.weights.append(weight)
            return
        if len(self.tokens) + embedding.vectors > CHUNK_LENGTH:
            self.close()
        self.embeddings.append(PlacedEmbedding(len(self.tokens), embedding.name, embedding.vectors))
        self.tokens += [PLACE] * embedding.vectors
        self.weights += [weight] * embedding.vectors

    def _make_room(self, token: int) -> None:
        """Close a full chunk, at its last comma if that is near.

        An embedding behind that comma leaves its place in the closed chunk, where its vectors then stand among the padding, and tokens
        of id 0 in the next one. Pictures of A1111 were made so.
        """
        full = len(self.tokens) == CHUNK_LENGTH
        near = self.last_comma >= 0 and CHUNK_LENGTH - self.last_comma <= self.backtrack
        if full and near and token != COMMA:
            cut = self.last_comma + 1
            moved_tokens, moved_weights = self.tokens[cut:], self.weights[cut:]
            self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
            self.close()
            self.tokens, self.weights = moved_tokens, moved_weights
        elif full:
            self.close()
        if token == COMMA:
            self.last_comma = len(self.tokens)

    def close(self) -> None:
        """Fill the chunk up and begin the next."""
        padding = CHUNK_LENGTH - len(self.tokens)
        tokens = (BOS, *self.tokens, *[EOS] * (padding + 1))
        weights = (1.0, *self.weights, *[1.0] * (padding + 1))
        self.chunks.append(Chunk(tokens, weights, tuple(self.embeddings)))
        self.tokens, self.weights, self.embeddings, self.last_comma = [], [], [], -1


def chunk_prompt(
    parts: Iterable[tuple[str, float]],
    tokenizer: Tokenizer,
    *,
    backtrack: int = COMMA_BACKTRACK,
    embeddings: EmbeddingNames = NO_EMBEDDINGS,
) -> list[Chunk]:
    """Chunks of a prompt taken apart by `parse_weights`; at least one.

    `backtrack` is how many tokens back from a chunk's end a comma may lie to be the place of the cut; 0 cuts anywhere.
    `embeddings` are those that the prompt may name, each of 75 vectors at most.
    """
    return _chunk(parts, tokenizer, backtrack, embeddings)[0]


def count_tokens(
    text: str, tokenizer: Tokenizer | None = None, embeddings: EmbeddingNames = NO_EMBEDDINGS
) -> tuple[int, int]:
    """(tokens used, room for tokens), the counter over a prompt box: "12/75".

    Network tags do not count, an embedding counts with all its vectors; a BREAK, and a cut at a comma, count as the full chunk they make. Raises `InvalidRequest` as
    `parse_weights` does. Without a `tokenizer` the shipped vocabulary is used, loaded once.
    """
    clean, _ = extract_networks(text)
    used = _chunk(parse_weights(clean), tokenizer or shipped_tokenizer(), COMMA_BACKTRACK, embeddings)[1]
    return used, max(1, -(-used // CHUNK_LENGTH)) * CHUNK_LENGTH


def _chunk(
    parts: Iterable[tuple[str, float]], tokenizer: Tokenizer, backtrack: int, embeddings: EmbeddingNames
) -> tuple[list[Chunk], int]:
    """The chunks, and the tokens used: 75 for each chunk but the last, which counts what it holds."""
    builder = _Builder(backtrack)
    for text, weight in parts:
        if text == BREAK and weight == BREAK_WEIGHT:
            builder.close()
            continue
        ids, position = tokenizer.encode(text), 0
        while position < len(ids):
            embedding = embeddings.at(ids, position)
            builder.add(ids[position], weight, embedding)
            position += len(embedding.ids) if embedding else 1
    used = len(builder.chunks) * CHUNK_LENGTH + len(builder.tokens)
    if builder.tokens or not builder.chunks:
        builder.close()
    return builder.chunks, used
