"""The model that a benchmark paints with or trains."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studio.errors import UnknownModel
from studio.families.tiny_vae import Half
from studio.library import Library
from studio.library.scan import describe, find_models
from studio.paths import REPOSITORY, Paths
from studio.prompt.styles import Style
from studio.schema.faces import FacePlan
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

    def tiny_vae(self, latent_space: str, half: Half) -> Path:
        """No tiny autoencoder is asked for."""
        raise NotImplementedError(half)

    def face_plan(self, name: str, weight: float) -> FacePlan:
        """No face restoration is asked for."""
        raise NotImplementedError(name)

    def lora(self, name: str) -> ModelInfo:
        """No LoRA is asked for."""
        raise NotImplementedError(name)

    def hypernetwork(self, name: str) -> ModelInfo:
        """No hypernetwork is asked for."""
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


THIN: Mapping[str, dict[str, Any]] = {
    "unet": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 32},
    "vae": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    "text_encoder": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
"""What makes SD 1.5 so small that a check of a benchmark takes seconds."""


def random_sd15(folder: Path, changes: Mapping[str, dict[str, Any]] | None = None, *, seed: int = 0) -> ModelInfo:
    """A diffusers folder of SD 1.5's shapes with random weights, float16 on disk (2 GB); the library's entry for it.

    `changes` (such as `THIN`) replace values of the parts' configurations. `seed` is that of the weights.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from studio.families.configs import shipped_config

    torch.manual_seed(seed)
    makers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "unet": UNet2DConditionModel.from_config,
        "vae": AutoencoderKL.from_config,
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    }
    for part, make in makers.items():
        config = shipped_config("sd1", part) | (changes or {}).get(part, {})
        make(config).half().save_pretrained(folder / part)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(shipped_config("sd1", "scheduler")))
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "text_encoder": ["transformers", "CLIPTextModel"], "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
    return ModelInfo(
        kind="checkpoint", name=folder.name, path=str(folder), layout="folder", family="sd1", size=0, mtime=0.0
    )
