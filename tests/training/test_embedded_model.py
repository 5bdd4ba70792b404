"""The committed embedded model: small, complete, and loaded by plain diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

MODEL = Path(__file__).resolve().parents[2] / "checkpoints" / "sprout-v1"


def test_it_is_at_most_40_mb_and_holds_no_pickle() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md", ".jpg", ""}
    assert (MODEL / "README.md").is_file() and (MODEL / "tokenizer" / "NOTICE").is_file()


def test_its_preview_factors_fit_its_latent() -> None:
    channels = json.loads((MODEL / "vae" / "config.json").read_text())["latent_channels"]
    preview = json.loads((MODEL / "preview.json").read_text())
    assert np.array(preview["factors"]).shape == (channels, 3)
    assert np.array(preview["bias"]).shape == (3,)


def test_it_paints_the_colours_it_is_asked_for() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [
        "a blue circle on a yellow background",
        "a red circle on a white background",
        "a white circle on a green background",
    ]
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    pictures = pipeline(prompts, num_inference_steps=12, guidance_scale=5.0, output_type="np", generator=seeds).images
    assert pictures.shape == (3, 128, 128, 3)
    corners = pictures[:, :10, :10].mean(axis=(1, 2))
    assert np.abs(corners - np.array([[252, 224, 92], [248, 248, 248], [84, 178, 96]]) / 255).max() < 0.25
