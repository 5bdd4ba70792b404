"""Training on from a finished model instead of from nothing, on the same or on other scenes.

The model's VAE is taken as it is, so its latents keep their meaning. Its U-Net and text encoder go on learning; words that it was never taught
begin at the row that all of them share in an exported vocabulary (see ``text.CompactVocabulary.expand``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from studio.errors import TrainingError
from studio.paths import REPOSITORY
from studio.schema.training import ScratchMethod
from studio.training.methods.scratch.models import build_unet
from studio.training.methods.scratch.text import CompactVocabulary

_SHAPE = ("block_out_channels", "down_block_types", "cross_attention_dim", "layers_per_block", "attention_head_dim")
_NEW_WORD_DEVIATION = 0.02
"""How far new words begin from the row they shared; CLIP's own initial deviation of token rows (transformers' ``initializer_factor``)."""


def start_folder(method: ScratchMethod) -> Path:
    """The diffusers folder that training goes on from. Raises ``TrainingError`` when there is none."""
    folder = REPOSITORY / method.start
    if not (folder / "model_index.json").is_file():
        raise TrainingError(f"start = {method.start!r}: {folder} holds no diffusers model (no model_index.json).")
    return folder


def copy_autoencoder(method: ScratchMethod, target: Path) -> None:
    """Put the model's VAE where a trained one would be."""
    temporary = target.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(start_folder(method) / "vae", temporary)
    temporary.rename(target)


def load_unet(method: ScratchMethod) -> UNet2DConditionModel:
    """The model's U-Net in fp32. Raises ``TrainingError`` where its shape is not the recipe's."""
    fresh = build_unet(method)
    found = UNet2DConditionModel.load_config(start_folder(method) / "unet")
    for key in _SHAPE:
        if _plain(found[key]) != _plain(fresh.config[key]):
            raise TrainingError(
                f"start = {method.start!r}: its U-Net has {key} = {found[key]}, the recipe asks for {fresh.config[key]}."
            )
    unet = UNet2DConditionModel.from_pretrained(start_folder(method) / "unet", torch_dtype=torch.float32)
    fresh.load_state_dict(unet.state_dict())
    return fresh


def load_text_encoder(method: ScratchMethod, text: CLIPTextModel, vocabulary: CompactVocabulary) -> None:
    """Put the weights of the model's text encoder into ``text``, which knows ``vocabulary`` only."""
    full = CLIPTextModel.from_pretrained(start_folder(method) / "text_encoder", dtype=torch.float32)
    weights = full.state_dict()
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    weights[name] = compact_rows(weights[name], vocabulary)
    try:
        text.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(f"start = {method.start!r}: its text encoder is not the recipe's: {error}") from error


def compact_rows(embedding: torch.Tensor, vocabulary: CompactVocabulary) -> torch.Tensor:
    """Rows (49408, width) of an exported embedding -> (size, width): the inverse of ``CompactVocabulary.expand``.

    New words, whose row is the shared one, begin near it, each at a place of its own.
    """
    rows, counts = torch.unique(embedding, dim=0, return_counts=True)
    shared = rows[counts.argmax()]
    known = embedding[torch.from_numpy(vocabulary.tokens.astype("int64"))].clone()
    new = (known == shared).all(dim=1)
    known[new] += _NEW_WORD_DEVIATION * torch.randn(int(new.sum()), known.shape[1])
    return torch.cat([known, shared[None]])


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple | list) else value
