"""Embeddings (textual inversion) in a prompt: which stretches of tokens are the name of one. AUTOMATIC1111's rules.

An embedding is named by its bare name anywhere in the text. Names are compared as tokens, so case does not count, blanks hardly do, and
`name,name` are two while `names` is none. Where several names fit the longest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from studio.prompt.tokenizer import shipped_tokenizer
from studio.prompt.weights import BREAK, BREAK_WEIGHT

Encode = Callable[[str], Sequence[int]]
"""Text to token ids without start and end."""
_KEPT_NAMES = 10_000


@dataclass(frozen=True)
class NamedEmbedding:
    """An embedding that may stand in a prompt. It takes `vectors` places of a chunk; `ids` are the tokens of its name."""

    name: str
    vectors: int
    ids: tuple[int, ...]


class EmbeddingNames:
    """The embeddings that a prompt may name: `vectors` is how many tokens each takes, by name.

    Of names with the same tokens ("Ink" and "ink") the first in the mapping counts. `encode` is the tokenizer's; by default that of the shipped one.
    """

    def __init__(self, vectors: Mapping[str, int], encode: Encode | None = None) -> None:
        self.encode = encode or shipped_tokenizer().encode
        self._starting: dict[int, list[NamedEmbedding]] = {}
        for name, count in vectors.items():
            if ids := _ids(self.encode, name):
                self._starting.setdefault(ids[0], []).append(NamedEmbedding(name, count, ids))
        for candidates in self._starting.values():
            candidates.sort(key=lambda candidate: -len(candidate.ids))

    def at(self, ids: Sequence[int], position: int) -> NamedEmbedding | None:
        """The embedding whose name begins at `ids[position]`; None for an ordinary token."""
        for candidate in self._starting.get(ids[position], ()):
            if tuple(ids[position : position + len(candidate.ids)]) == candidate.ids:
                return candidate
        return None

    def found_in(self, parts: Iterable[tuple[str, float]]) -> list[NamedEmbedding]:
        """The embeddings that a prompt taken apart by `parse_weights` names, in order, each as often as it stands there."""
        found: list[NamedEmbedding] = []
        for text, weight in parts if self._starting else ():
            ids = () if (text, weight) == (BREAK, BREAK_WEIGHT) else self.encode(text)
            position = 0
            while position < len(ids):
                embedding = self.at(ids, position)
                found += [embedding] if embedding else []
                position += len(embedding.ids) if embedding else 1
        return found


NO_EMBEDDINGS = EmbeddingNames({}, lambda text: ())


@lru_cache(maxsize=_KEPT_NAMES)
def _ids(encode: Encode, name: str) -> tuple[int, ...]:
    return tuple(encode(name))
