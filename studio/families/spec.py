"""What a model family is, as data: `FamilySpec` with its `EncoderSpec`s and `PreviewFactors`. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.schema.models import Family, PredictionType

DATA = Path(__file__).parent / "data"
"""Shipped configurations, preview factors and the CLIP vocabulary."""


@dataclass(frozen=True)
class PreviewFactors:
    """A linear map from latents to colours, for previews without the autoencoder.

    value = bias + sum over channels of latent * factors[channel], in -1..1, with latents as the U-Net sees them (scaled);
    pixel = (value + 1) / 2 clamped to 0..1.
    """

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def parse(cls, data: Any) -> PreviewFactors:
        """From `{"factors": [[r, g, b], ...], "bias": [r, g, b]}`. Raises ValueError when it is anything else."""
        if not isinstance(data, dict) or not isinstance(data.get("factors"), list) or not data["factors"]:
            raise ValueError("'factors' must be a list with one [r, g, b] for each latent channel")
        return cls(tuple(_triple(row) for row in data["factors"]), _triple(data.get("bias") or [0.0, 0.0, 0.0]))


@dataclass(frozen=True)
class EncoderSpec:
    """One text encoder of a family.

    `layout` and `prefixes` say how single-file checkpoints store it: as the Hugging Face CLIP text model or as OpenCLIP.
    `layer` is the hidden state that the U-Net reads: "clip_skip" is the n-th last one followed by the final layer norm,
    "penultimate" always the second last, without the norm. `pad_token_id` fills a chunk after its first end token.
    """

    name: Literal["text_encoder", "text_encoder_2"]
    layout: Literal["clip", "open_clip"]
    prefixes: tuple[str, ...]
    layer: Literal["clip_skip", "penultimate"]
    pad_token_id: int
    pooled: bool = False
    unused_layers: int = 0
    """How many more layers the file has than are ever run (SD 2: one)."""


@dataclass(frozen=True)
class FamilySpec:
    """One model family: how it is recognised, built and fed.

    `context` is the width of the text states of the published models; `heads` the number of attention heads of every
    U-Net block, or None for one head per 64 channels.
    """

    name: Family
    title: str
    native_size: int
    context: int
    heads: int | None
    prediction_type: PredictionType
    encoders: tuple[EncoderSpec, ...]
    preview: PreviewFactors
    zero_empty_negative: bool = False
    """A negative prompt of "" gives zeros instead of the encoded empty text (states and pooled)."""
    size_conditioning: bool = False
    """The U-Net is told picture size and crop, and the pooled text."""
    aesthetic_scores: tuple[float, float] | None = None
    """Where the last number that the U-Net is told is a rating of the picture: for the prompt, and for the negative prompt."""
    latent_space: str = "sd"
    """Families of one latent space can hand latents to each other."""
    latent_channels: int = 4


def shipped_preview(name: str) -> PreviewFactors:
    """The preview factors of `data/latent_rgb.json` called `name` (ComfyUI's published matrices)."""
    return PreviewFactors.parse(json.loads((DATA / "latent_rgb.json").read_text(encoding="utf-8"))[name])


def _triple(row: Any) -> tuple[float, float, float]:
    if not isinstance(row, Sequence) or len(row) != 3 or not all(isinstance(value, int | float) for value in row):
        raise ValueError(f"{row!r} is not a list of three numbers")
    return float(row[0]), float(row[1]), float(row[2])
