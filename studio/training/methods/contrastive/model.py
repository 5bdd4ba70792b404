"""The pair of networks (transformers' ``CLIPModel``) and its two vectors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from studio.schema.training import ClipMethod, TowerPart
from studio.training.methods.scratch.text import MAX_TOKENS

FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0
"""Of similarities before the softmax, as in CLIP (Radford et al. 2021, section 2.5)."""


def build_clip(method: ClipMethod, vocabulary: int, bos: int, eos: int) -> CLIPModel:
    """A fresh ``CLIPModel`` over ``vocabulary`` tokens of which ``bos`` and ``eos`` begin and end a caption."""
    vision = method.vision
    return CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(
                vocab_size=vocabulary,
                max_position_embeddings=MAX_TOKENS,
                bos_token_id=bos,
                eos_token_id=eos,
                pad_token_id=eos,
                projection_dim=method.projection,
                **_transformer(method.text),
            ),
            vision_config=CLIPVisionConfig(
                image_size=vision.side,
                patch_size=vision.patch,
                projection_dim=method.projection,
                **_transformer(vision),
            ),
            projection_dim=method.projection,
            logit_scale_init_value=math.log(1 / FIRST_TEMPERATURE),
        )
    )


def picture_vectors(model: CLIPModel, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, side, side) in [-1, 1] -> unit vectors (n, projection) in 32 bits."""
    pooled = model.vision_model(pixel_values=pictures).pooler_output
    return functional.normalize(model.visual_projection(pooled).float(), dim=-1)


def caption_vectors(model: CLIPModel, rows: torch.Tensor) -> torch.Tensor:
    """Token rows (n, length) -> unit vectors (n, projection) in 32 bits.

    What follows the first end token has no influence: attention is causal, and the vector is read there.
    """
    pooled = model.text_model(input_ids=rows).pooler_output
    return functional.normalize(model.text_projection(pooled).float(), dim=-1)


def _transformer(part: TowerPart) -> dict[str, int | str]:
    return {
        "hidden_size": part.width,
        "intermediate_size": part.width * 4,
        "num_hidden_layers": part.layers,
        "num_attention_heads": part.heads,
        "hidden_act": "gelu",  # one kernel; OpenAI's quick GELU takes a third more time to train on a CPU
    }
