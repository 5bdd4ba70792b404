"""Stage 5: write the model as a diffusers folder that plain ``StableDiffusionPipeline.from_pretrained`` loads, in fp16.

Beside the pipeline: ``preview.json`` = ``{"factors": [[r, g, b] a latent channel], "bias": [r, g, b]}``, a linear map from the latents that
the U-Net sees to RGB in [-1, 1] at latent resolution, fitted by least squares.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn
from transformers import CLIPTextModel

from studio.paths import REPOSITORY, atomic_write
from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext
from studio.training.methods.scratch.autoencoder import to_tensor
from studio.training.methods.scratch.diffusion import Networks
from studio.training.methods.scratch.lessons import Lessons
from studio.training.methods.scratch.models import build_scheduler, build_text_encoder, latent_scale
from studio.training.methods.scratch.pool import Pool
from studio.training.methods.scratch.text import TOKENIZER_FOLDER, CompactVocabulary, load_tokenizer
from studio.training.publish import forget_origin, load_as_fp32, publish

_PREVIEW_PICTURES = 256


def export_model(
    context: TrainingContext, lessons: Lessons, vae: AutoencoderKL, networks: Networks, pool: Pool
) -> Path:
    """Write the model to the run folder and, when the recipe names a target, publish it there; returns the run's copy."""
    shipped = fold_normalisation(vae, pool)
    tokenizer = load_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=shipped,
        text_encoder=expand_text_encoder(context, networks.text, pool.vocabulary, len(tokenizer)),
        tokenizer=tokenizer,
        unet=networks.unet,
        scheduler=build_scheduler(context.settings(ScratchMethod).diffusion),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = context.run.model
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    half = copy.deepcopy(pipeline.components)
    for name in ("vae", "text_encoder", "unet"):
        half[name] = half[name].to("cpu", torch.float16)
    StableDiffusionPipeline(**half, requires_safety_checker=False).save_pretrained(temporary)
    _ship_tokenizer(temporary / "tokenizer")
    load_as_fp32(temporary / "text_encoder" / "config.json")
    forget_origin(temporary)
    atomic_write(temporary / "preview.json", json.dumps(fit_preview(context, lessons, shipped)).encode() + b"\n")
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    if context.config.export_to:
        publish(folder, REPOSITORY / context.config.export_to)
    return folder


def fold_normalisation(vae: AutoencoderKL, pool: Pool) -> AutoencoderKL:
    """A copy whose latents have zero mean a channel (moved into the 1x1 convolutions) and whose ``scaling_factor`` makes their deviation 1."""
    shipped: AutoencoderKL = copy.deepcopy(vae)
    mean = torch.tensor(pool.mean)
    before, after = shipped.quant_conv, shipped.post_quant_conv
    assert (
        isinstance(before, nn.Conv2d)
        and isinstance(after, nn.Conv2d)
        and before.bias is not None
        and after.bias is not None
    )
    with torch.no_grad():
        before.bias[: len(mean)] -= mean.to(before.bias)
        after.bias += after.weight[:, :, 0, 0] @ mean.to(after.weight)
    shipped.register_to_config(scaling_factor=1 / pool.deviation)
    return shipped


def expand_text_encoder(
    context: TrainingContext, compact: CLIPTextModel, vocabulary: CompactVocabulary, size: int
) -> CLIPTextModel:
    """The same encoder over CLIP's whole vocabulary."""
    tokenizer = load_tokenizer()
    full = build_text_encoder(
        context.settings(ScratchMethod).text, size, tokenizer.bos_token_id, tokenizer.eos_token_id
    )
    weights = {name: value.cpu() for name, value in compact.state_dict().items()}
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    weights[name] = vocabulary.expand(weights[name], size)
    full.load_state_dict(weights)
    return full.eval()


def fit_preview(context: TrainingContext, lessons: Lessons, vae: AutoencoderKL) -> dict[str, Any]:
    """Least squares from scaled latents to the pictures at latent size."""
    pictures = to_tensor(lessons.pictures(0, min(_PREVIEW_PICTURES, lessons.count)))
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor
    small = functional.avg_pool2d(pictures, latent_scale(context.settings(ScratchMethod).autoencoder))
    values = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).double().numpy()
    colours = small.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    solution: npt.NDArray[np.float64]
    solution = np.linalg.lstsq(np.concatenate([values, np.ones((len(values), 1))], axis=1), colours, rcond=None)[0]
    *factors, bias = np.round(solution, 5).tolist()
    return {"factors": factors, "bias": bias}


def _ship_tokenizer(folder: Path) -> None:
    """The two small vocabulary files instead of the one that is three times their size."""
    shutil.rmtree(folder)
    shutil.copytree(TOKENIZER_FOLDER, folder)
