"""TAESD, the tiny autoencoder for Stable Diffusion's latents: what its files are called, and how they name their weights. No torch.

It was trained to do what a family's autoencoder does with few convolutions (https://github.com/madebyollin/taesd). Its latents are
those of the U-Net: nothing is scaled.

| file | what it holds | its names |
|---|---|---|
| `taesd_decoder.safetensors`, `taesd_encoder.safetensors` | a half | numbers of the layers: `3.conv.0.weight` |
| `taesd.safetensors`, `taesd/diffusion_pytorch_model.safetensors` | both halves, as diffusers saves them | `decoder.layers.2.conv.0.weight` |

For SDXL's latents the files begin with `taesdxl`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from studio.families.layout import Source

Half = Literal["encoder", "decoder"]
STEMS = {"sd": "taesd", "sdxl": "taesdxl"}
"""How the files for a latent space (`FamilySpec.latent_space`) begin."""
SCALING_FACTORS = {"sd": 0.18215, "sdxl": 0.13025}
"""The latent spaces themselves: what the U-Net's latents are divided by before the family's own autoencoder decodes them."""
HOME = "https://huggingface.co/madebyollin"
_CLAMP = {"encoder": 0, "decoder": 1}
"""Layers that the original counts and diffusers does not: the decoder's clamp."""


def tiny_vae_names(latent_space: str, half: Half) -> tuple[str, ...]:
    """The files that may hold this half, the one that is taken first in front."""
    stem = STEMS[latent_space]
    return f"{stem}_{half}.safetensors", f"{stem}.safetensors", f"{stem}/diffusion_pytorch_model.safetensors"


def tiny_vae_sources(keys: Iterable[str], half: Half, present: Collection[str]) -> dict[str, Source]:
    """Where the weights `keys` of diffusers' module stand in a file that has the names `present`."""

    def place(key: str) -> str:
        _, _, number, *rest = key.split(".")
        original = ".".join((str(int(number) + _CLAMP[half]), *rest))
        return original if original in present else key

    return {key: Source(place(key)) for key in keys}
