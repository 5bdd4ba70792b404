"""The model that a benchmark paints with."""

from __future__ import annotations

import contextlib
from pathlib import Path

from studio.errors import UnknownModel
from studio.library import Library
from studio.library.scan import describe, find_models
from studio.paths import REPOSITORY, Paths
from studio.prompt.styles import Style
from studio.schema.models import ModelInfo


class OneModel:
    """A library of one model (see `ModelLookup`)."""

    def __init__(self, model: ModelInfo) -> None:
        self.model = model

    def checkpoint(self, name: str | None) -> ModelInfo:
        """The model, whatever the name."""
        return self.model

    def vae(self, name: str) -> None:
        """No separate VAE."""

    def lora(self, name: str) -> ModelInfo:
        """No LoRA is asked for."""
        raise NotImplementedError(name)

    def lora_hashes(self) -> dict[str, str]:
        """No LoRA is known."""
        return {}

    def embeddings(self) -> list[ModelInfo]:
        """No embeddings: a prompt is its words."""
        return []

    def embedding(self, name: str) -> ModelInfo:
        """No embedding is asked for."""
        raise NotImplementedError(name)

    def embedding_hashes(self) -> dict[str, str]:
        """No embedding is known."""
        return {}

    def style(self, name: str) -> Style:
        """No style is asked for."""
        raise NotImplementedError(name)

    def wildcard(self, name: str) -> list[str]:
        """No wildcard is asked for."""
        raise NotImplementedError(name)


def find_model(name: str) -> ModelInfo:
    """A checkpoint of this installation, or the diffusers folder of that path, wherever it is. Raises `UnknownModel`."""
    folder = Path(name).absolute()
    if folder.is_dir():
        for found in find_models(folder.parent):
            if found.path.absolute() == folder:
                return describe(found, "checkpoint")[0]
        raise UnknownModel(f"{folder} is no diffusers folder.", field="model")
    with contextlib.closing(Library(Paths(REPOSITORY))) as library:
        return library.checkpoint(name)
