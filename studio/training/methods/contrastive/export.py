"""Stage 4: write the pair as a folder that transformers' ``CLIPModel`` and ``CLIPProcessor`` load, in fp16, with CLIP's whole vocabulary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import CLIPModel

from studio.paths import atomic_write
from studio.schema.training import ClipMethod
from studio.training.context import TrainingContext
from studio.training.methods.contrastive.model import build_clip
from studio.training.methods.scratch.text import TOKENIZER_FOLDER, CompactVocabulary, load_tokenizer
from studio.training.publish import load_as_fp32

_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def export_pair(context: TrainingContext, model: CLIPModel, vocabulary: CompactVocabulary) -> Path:
    """Write ``model`` to the run folder; returns its path."""
    method = context.settings(ClipMethod)
    folder = context.run.model
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    expand(method, model, vocabulary).to("cpu", torch.float16).save_pretrained(temporary)
    load_as_fp32(temporary / "config.json")
    shutil.copytree(TOKENIZER_FOLDER, temporary, dirs_exist_ok=True)
    processor = json.dumps(processor_config(method.vision.side), indent=2)
    atomic_write(temporary / "preprocessor_config.json", processor.encode() + b"\n")
    for file in temporary.glob("*.safetensors"):
        file.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def expand(method: ClipMethod, compact: CLIPModel, vocabulary: CompactVocabulary) -> CLIPModel:
    """The same pair over CLIP's whole vocabulary."""
    tokenizer = load_tokenizer()
    full = build_clip(method, len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    weights = {name: value.cpu() for name, value in compact.state_dict().items()}
    weights[_EMBEDDING] = vocabulary.expand(weights[_EMBEDDING], len(tokenizer))
    full.load_state_dict(weights)
    return full.eval()


def processor_config(side: int) -> dict[str, Any]:
    """``CLIPImageProcessor``: the shorter edge to ``side`` pixels, the middle square, values in [-1, 1]."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
