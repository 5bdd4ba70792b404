"""The tiny autoencoder (TAESD) in the place of a checkpoint's own: much faster, a little less exact. See `studio.families.tiny_vae`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from studio.engine.loading import LoadedModel, LoadedVae
from studio.engine.loading_weights import Filling, Weights, empty
from studio.errors import IncompatibleFile
from studio.families.tiny_vae import SCALING_FACTORS, Half, tiny_vae_sources

CHANNELS, SCALE = 4, 8
_NEAR = 1e-4


def load_tiny_vae(path: Path, half: Half, model: LoadedModel, dtype: torch.dtype) -> LoadedVae:
    """The half in the file at `path`, on the device of `model`; it can do nothing but decode, or encode.

    Its latents are the U-Net's, so they are scaled by 1. Raises `NotFound`, `DamagedFile`, and `IncompatibleFile` for a file
    without this half, or when the latents of `model` are not those that it was trained on.
    """
    latent = model.latent
    known = SCALING_FACTORS[model.family.latent_space]
    if (latent.channels, latent.scale, latent.shift_factor) != (CHANNELS, SCALE, 0) or abs(
        latent.scaling_factor - known
    ) > _NEAR:
        raise IncompatibleFile(
            f"TAESD does not know the latents of {model.info.name}: they have {latent.channels} channels at 1/{latent.scale} of the size, "
            f"scaled by {latent.scaling_factor:g}; it knows {CHANNELS} at 1/{SCALE}, scaled by {known:g}. Choose Full.",
            field=f"vae_{half}",
        )
    weights = Weights([path])
    module = empty(AutoencoderTiny, "tiny autoencoder")
    delattr(module, "encoder" if half == "decoder" else "decoder")
    choose = partial(tiny_vae_sources, half=half, present=weights.shapes.keys())
    filled = Filling(module, weights, choose, dtype, f"tiny {half}").from_file(model.vae.device)
    return LoadedVae(filled, replace(latent, scaling_factor=1.0, shift_factor=0.0))
