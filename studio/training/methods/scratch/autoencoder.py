"""Stage 1: train the autoencoder on crops of the pictures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from diffusers import AutoencoderKL

from studio.schema.training import ScratchMethod
from studio.training.checkpoint import Checkpoint, named, optimizer_tensors, restore_optimizer, under
from studio.training.context import TrainingContext
from studio.training.counter import batch_indices, generator
from studio.training.methods.scratch.average import WeightAverage
from studio.training.methods.scratch.lessons import Lessons
from studio.training.methods.scratch.models import build_autoencoder

STAGE = "autoencoder"
_EMA_DECAY = 0.98
_EMA_EVERY = 4


def train_autoencoder(context: TrainingContext, lessons: Lessons) -> AutoencoderKL:
    """Train or resume, and return the averaged network."""
    config, part = context.config, context.settings(ScratchMethod).autoencoder
    torch.manual_seed(config.seed)
    vae = build_autoencoder(part, context.settings(ScratchMethod).data.side).to(context.device).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=part.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    average = WeightAverage(vae, _EMA_DECAY)
    start = 0
    if saved := context.store(STAGE).latest():
        start = saved.step
        vae.load_state_dict(under("vae", saved.tensors))
        average.load(under("average", saved.tensors))
        restore_optimizer(optimizer, saved.tensors)

    def state(step: int) -> Checkpoint:
        tensors = named("vae", vae.state_dict()) | named("average", average.tensors) | optimizer_tensors(optimizer)
        return Checkpoint(step, tensors, {})

    pictures = lessons.pictures(0, min(part.pictures, lessons.count))
    clock = context.stage(STAGE, start, part.steps, state)
    for step in range(start, part.steps):
        optimizer.param_groups[0]["lr"] = part.learning_rate * _rate(step, part.steps)
        batch = _crops(pictures, config.seed, step, part.batch, part.crop).to(context.device)
        noise = torch.Generator().manual_seed(int(generator(config.seed, "autoencoder/noise", step).integers(2**62)))
        with context.autocast():
            posterior = vae.encode(batch).latent_dist
            mean, log_variance = posterior.mean, posterior.logvar
            latents = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=noise).to(mean)
            decoded = vae.decode(latents).sample
        kl = 0.5 * (mean.float().square() + log_variance.float().exp() - 1 - log_variance.float()).mean()
        loss = reconstruction_loss(decoded.float(), batch) + part.kl_weight * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % _EMA_EVERY == 0:
            average.update(vae)
        clock.tick(step + 1, loss=loss.item(), kl=kl.item())
    average.copy_to(vae)
    return vae.eval()


def reconstruction_loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + 2 MSE + 0.5 L1 of horizontal and vertical differences + 0.3 L1 at half and at quarter size; values in [-1, 1]."""
    error = decoded - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    coarse = sum(
        (functional.avg_pool2d(error, size).abs().mean() for size in (2, 4)), torch.zeros((), device=error.device)
    )
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + 0.3 * coarse


def reconstruction_psnr(vae: AutoencoderKL, pictures: npt.NDArray[np.uint8]) -> float:
    """Mean peak signal-to-noise ratio in dB, of values in 0..1, over whole pictures."""
    values = []
    with torch.no_grad():
        for start in range(0, len(pictures), 16):
            batch = to_tensor(pictures[start : start + 16])
            decoded = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
            mse = ((decoded - batch) / 2).square().mean(dim=(1, 2, 3))
            values.extend((-10 * torch.log10(mse)).tolist())
    return float(np.mean(values))


def to_tensor(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def _crops(pictures: npt.NDArray[np.uint8], seed: int, step: int, batch: int, crop: int) -> torch.Tensor:
    indices = batch_indices(seed, "autoencoder", step * batch, batch, len(pictures))
    rng = generator(seed, "autoencoder/crop", step)
    corners = rng.integers(pictures.shape[1] - crop + 1, size=(batch, 2))
    cut = [
        pictures[index, top : top + crop, left : left + crop]
        for index, (top, left) in zip(indices, corners, strict=True)
    ]
    return to_tensor(np.stack(cut))


def _rate(step: int, total: int) -> float:
    """Warm-up over 50 steps, then a cosine to 2 %."""
    return min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))
