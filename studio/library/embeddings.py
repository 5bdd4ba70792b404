"""Which embeddings a checkpoint takes, by the words that stand for them in a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from studio.families import family
from studio.prompt.embeddings import EmbeddingNames
from studio.schema.models import ModelInfo


@dataclass(frozen=True)
class EmbeddingWords:
    """`usable` are the embeddings that fit; `refused` says of the others, in one sentence, why not. Both by word, which differ."""

    usable: dict[str, ModelInfo]
    refused: dict[str, str]

    @property
    def vectors(self) -> dict[str, int]:
        """How many tokens each usable one takes."""
        return {word: info.vectors for word, info in self.usable.items()}

    @property
    def names(self) -> EmbeddingNames:
        """The usable ones, to be found in prompts."""
        return EmbeddingNames(self.vectors)

    @property
    def all_names(self) -> EmbeddingNames:
        """The refused ones too, which take no place of their own."""
        return EmbeddingNames({**self.vectors, **dict.fromkeys(self.refused, 1)})


def word_of(embedding: ModelInfo) -> str:
    """The word that stands for it: the file's stem, as in A1111."""
    return PurePath(embedding.path).stem


def embedding_words(embeddings: Iterable[ModelInfo], checkpoint: ModelInfo) -> EmbeddingWords:
    """Sort `embeddings` for `checkpoint`. Of several with one word that fit, the one in the uppermost folder counts."""
    usable: dict[str, ModelInfo] = {}
    refused: dict[str, str] = {}
    for info in sorted(embeddings, key=lambda info: info.name.count("/")):
        word = word_of(info)
        if info.problem is None and fits(info, checkpoint):
            usable.setdefault(word, info)
        else:
            refused.setdefault(word, _reason(info, checkpoint))
    return EmbeddingWords(usable, {word: why for word, why in refused.items() if word not in usable})


def fits(embedding: ModelInfo, checkpoint: ModelInfo) -> bool:
    """Whether the vectors are as wide as those of the checkpoint's text encoders; by family where those are not known."""
    if checkpoint.text_widths:
        return embedding.text_widths == checkpoint.text_widths
    return embedding.family == checkpoint.family


def _reason(embedding: ModelInfo, checkpoint: ModelInfo) -> str:
    word = word_of(embedding)
    if embedding.problem:
        return f"Embedding {word!r} cannot be used, so its name was read as ordinary words: {embedding.problem}"
    return (
        f"Embedding {word!r} was made for {_maker(embedding)}, the checkpoint {checkpoint.name!r} is {_maker(checkpoint)}: "
        "its name was read as ordinary words."
    )


def _maker(info: ModelInfo) -> str:
    """The family, and the widths that decide."""
    title = "another kind of model" if info.family == "unknown" else family(info.family).title
    widths = " and ".join(str(width) for width in info.text_widths)
    return f"{title} (vectors {widths} wide)" if widths else title
