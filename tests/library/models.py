"""Tiny model files made by hand: right names and shapes, next to no weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UNET = "model.diffusion_model."
SD1: dict[str, list[int]] = {
    f"{UNET}input_blocks.0.0.weight": [1, 4, 1, 1],
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [1, 768],
    "first_stage_model.decoder.conv_in.weight": [1, 4, 1, 1],
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": [1, 768],
}
INPAINT = {**SD1, f"{UNET}input_blocks.0.0.weight": [1, 9, 1, 1]}
VAE = {"decoder.conv_in.weight": [1, 4, 1, 1], "encoder.conv_in.weight": [1, 3, 1, 1]}
EMBEDDING = {"emb_params": [3, 768]}
EMBEDDING_XL = {"clip_l": [2, 768], "clip_g": [2, 1280]}
LORA_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
LORA = {f"{LORA_KEY}.lora_down.weight": [1, 768], f"{LORA_KEY}.lora_up.weight": [320, 1]}


def encoded(tensors: Mapping[str, list[int]], metadata: Mapping[str, str] | None = None, fill: int = 0) -> bytes:
    """A .safetensors file of bytes that are all `fill`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        size = math.prod(shape)
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * end


def save(
    path: Path, tensors: Mapping[str, list[int]], metadata: Mapping[str, str] | None = None, fill: int = 0
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(tensors, metadata, fill))
    return path


def save_folder(path: Path, fill: int = 0) -> Path:
    """A diffusers folder of a small SD 1 model for 128-pixel pictures."""
    configs: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
        },
        "unet/config.json": {"in_channels": 4, "cross_attention_dim": 32, "sample_size": 16},
        "vae/config.json": {"block_out_channels": [8, 8, 8, 8]},
        "text_encoder/config.json": {"vocab_size": 49408},
        "scheduler/scheduler_config.json": {"prediction_type": "v_prediction"},
    }
    for name, config in configs.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(config))
    for part, stem in {
        "unet": "diffusion_pytorch_model",
        "vae": "diffusion_pytorch_model",
        "text_encoder": "model",
    }.items():
        save(path / part / f"{stem}.safetensors", {"weight": [16]}, fill=fill)
    return path
