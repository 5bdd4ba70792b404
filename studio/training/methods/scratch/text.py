"""Captions as tokens: the real CLIP tokenizer, and the compact vocabulary that training uses of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import CLIPTokenizer

MAX_TOKENS = 77
TOKENIZER_FOLDER = Path(__file__).resolve().parents[3] / "families" / "data" / "clip_tokenizer"


def load_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer from the shipped vocabulary; 49408 tokens, padded with the end token."""
    return CLIPTokenizer.from_pretrained(TOKENIZER_FOLDER)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> npt.NDArray[np.int32]:
    """Token ids (n, 77), cut and padded as Stable Diffusion does."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="np")
    return np.asarray(encoded.input_ids, dtype=np.int32)


@dataclass(frozen=True)
class CompactVocabulary:
    """The tokens that occur in training, in rising order; the row after them stands for every other token.

    A quarter of a million captions use a few hundred of CLIP's 49408 tokens: training only those rows makes the optimizer's work small,
    and the shared row of all other words is trained by putting it into captions at random.
    """

    tokens: npt.NDArray[np.int32]

    @classmethod
    def of(cls, ids: npt.NDArray[np.int32]) -> CompactVocabulary:
        return cls(np.unique(ids))

    @property
    def size(self) -> int:
        return len(self.tokens) + 1

    @property
    def unknown(self) -> int:
        return len(self.tokens)

    def compact(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """CLIP ids -> row numbers."""
        rows = np.searchsorted(self.tokens, ids)
        known = self.tokens[np.minimum(rows, len(self.tokens) - 1)] == ids
        return np.where(known, rows, self.unknown).astype(np.int32)

    def expand(self, embedding: torch.Tensor, vocabulary: int) -> torch.Tensor:
        """Rows (size, width) -> (vocabulary, width), the unknown row wherever training had none."""
        full = embedding[self.unknown].expand(vocabulary, -1).clone()
        full[torch.from_numpy(self.tokens.astype(np.int64))] = embedding[: len(self.tokens)]
        return full


def insert_unknown(
    rows: npt.NDArray[np.int32], which: Iterable[int], unknown: int, end: int, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """A copy of ``rows`` (n, 77) in which each of ``which`` has the unknown word put in before a random one of its words."""
    changed = rows.copy()
    for row in which:
        length = int(np.argmax(rows[row] == end))
        at = int(rng.integers(1, length + 1))
        changed[row, at + 1 :] = rows[row, at:-1]
        changed[row, at] = unknown
    return changed
