"""The plain loop: what diffusers' example `train_text_to_image_lora.py` does in each step, on a CPU, without accelerate around it.

Every step reads a picture, encodes it with the autoencoder and its caption with the text encoder, and trains rank-8 adapters on attention's
queries, keys, values and outputs. In bf16, weights (those of the adapters too) are bfloat16 and the U-Net runs under autocast, as the
example does it. Gradients are really clipped here, which the example means to do. https://github.com/huggingface/diffusers
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel

Example = tuple[torch.Tensor, torch.Tensor]


class Pictures(Dataset[Example]):
    """Pixels [3, side, side] in -1 to 1, and the caption as 77 tokens (drawn: their values cost nothing)."""

    def __init__(self, folder: Path, side: int) -> None:
        self._files = sorted(folder.glob("*.png"))
        self._side = side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        with Image.open(self._files[index]) as opened:
            picture = opened.convert("RGB").resize((self._side, self._side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1).permute(2, 0, 1)
        return pixels, torch.randint(0, 49406, (77,))


def train(model: Path, pictures: Path, *, side: int, rank: int, steps: int, dtype: torch.dtype) -> None:
    """`steps` optimizer steps with batches of one, on the CPU."""
    torch.manual_seed(0)
    noise_schedule = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder").requires_grad_(False).to(dtype)
    vae = AutoencoderKL.from_pretrained(model / "vae").requires_grad_(False).to(dtype)
    unet = UNet2DConditionModel.from_pretrained(model / "unet").requires_grad_(False).to(dtype)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    learning = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=1e-2)
    unet.train()
    for _, (pixels, tokens) in zip(range(steps), _endless(Pictures(pictures, side)), strict=False):
        latents = vae.encode(pixels.to(dtype)).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, noise_schedule.config.num_train_timesteps, (len(latents),))
        noised = noise_schedule.add_noise(latents, noise, timesteps)
        states = text_encoder(tokens, return_dict=False)[0]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            predicted = unet(noised, timesteps, states, return_dict=False)[0]
        loss = mse_loss(predicted.float(), noise.float(), reduction="mean")
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _endless(pictures: Pictures) -> Iterator[Example]:
    while True:
        yield from DataLoader(pictures, batch_size=1, shuffle=True)
