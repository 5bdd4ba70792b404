"""The vectors of embeddings (textual inversion), read from their files and put where their names stand in a prompt."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from studio.engine.file_cache import FileCache, file_stamp
from studio.engine.loading import LoadedModel
from studio.engine.loading_weights import Weights, check_finite
from studio.engine.text_encoders import InsertedVectors
from studio.errors import IncompatibleFile
from studio.families.embedding_signature import describe_embedding
from studio.families.layout import Source
from studio.families.signature import pickle_problem
from studio.prompt.chunks import Chunk, Tokenizer
from studio.prompt.embeddings import NO_EMBEDDINGS, EmbeddingNames
from studio.schema.resolved import EmbeddingUse

KEPT_FILES = 64
"""Files whose vectors stay in memory, at most 0.6 MB each; the longest unused go first."""

Vectors = tuple[Tensor, ...]
"""One float32 [n, width] on the CPU for each text encoder."""


@dataclass(frozen=True)
class LoadedEmbeddings:
    """The embeddings of one request. `key` is equal exactly while names and files are; for caches of encoded prompts."""

    names: EmbeddingNames
    vectors: dict[str, Vectors]
    key: Hashable

    def placed(self, chunks: Sequence[Chunk]) -> list[InsertedVectors]:
        """The vectors at their places in `chunks`, which were made with `names`."""
        return [
            InsertedVectors(row, 1 + place.offset, self.vectors[place.name])  # 1: the start token
            for row, chunk in enumerate(chunks)
            for place in chunk.embeddings
        ]


NO_VECTORS = LoadedEmbeddings(NO_EMBEDDINGS, {}, ())


class EmbeddingVectors:
    """Reads embeddings for one loaded model; a file is read again only when it changed on disk."""

    def __init__(self, model: LoadedModel, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._files: FileCache[Vectors] = FileCache(KEPT_FILES)

    def load(self, uses: Iterable[EmbeddingUse]) -> LoadedEmbeddings:
        """The vectors of `uses`. Raises `NotFound`, `DamagedFile`, and `IncompatibleFile` for a file that is none or does not fit the model."""
        stamps = {use.name: file_stamp(Path(use.model.path), f"embedding {use.name!r}", "prompt") for use in uses}
        if not stamps:
            return NO_VECTORS
        vectors = {use.name: self._files.of(stamps[use.name], partial(self._read, use)) for use in uses}
        names = EmbeddingNames({name: len(parts[0]) for name, parts in vectors.items()}, self._tokenizer.encode)
        return LoadedEmbeddings(names, vectors, tuple(stamps.items()))

    def _read(self, use: EmbeddingUse) -> Vectors:
        path = Path(use.model.path)
        if path.suffix.lower() != ".safetensors":
            raise IncompatibleFile(pickle_problem(path.name), field="prompt")
        weights = Weights([path])
        signature = describe_embedding(weights.header)
        wanted = tuple(module.get_input_embeddings().embedding_dim for module in self._model.text_encoders)  # type: ignore[operator]
        parts = list(zip(signature.keys, signature.widths, strict=True))[
            -len(wanted) :
        ]  # the SDXL refiner has the second encoder only
        if signature.problem or tuple(width for _, width in parts) != wanted:
            widths = " and ".join(map(str, signature.widths))
            reason = (
                signature.problem or f"Its vectors are {widths} wide, the model's {' and '.join(map(str, wanted))}."
            )
            raise IncompatibleFile(f"Embedding {use.name!r}: {reason}", field="prompt")
        tensors = {key: weights.tensor(Source(key)) for key, _ in parts}
        check_finite(path.name, tensors)
        return tuple(tensors[key].float().reshape(-1, width).clone() for key, width in parts)
