"""Stage 4: train U-Net and text encoder together on the pool of latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from studio.schema.training import DiffusionPart, ScratchMethod
from studio.training.checkpoint import Checkpoint, named, optimizer_tensors, restore_optimizer, under
from studio.training.context import TrainingContext
from studio.training.counter import batch_indices, generator
from studio.training.methods.scratch.average import WeightAverage
from studio.training.methods.scratch.models import build_scheduler, build_text_encoder, build_unet
from studio.training.methods.scratch.objective import Objective
from studio.training.methods.scratch.pool import Pool, normalise
from studio.training.methods.scratch.start import load_text_encoder, load_unet
from studio.training.methods.scratch.text import insert_unknown

STAGE = "diffusion"
_EMA_EVERY = 4


@dataclass(frozen=True)
class Networks:
    """U-Net and text encoder over the compact vocabulary."""

    unet: UNet2DConditionModel
    text: CLIPTextModel


@dataclass(frozen=True)
class Batch:
    """What one step sees: normalised latents, noise, timesteps (n,), token rows (n, length)."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    rows: torch.Tensor


def build_networks(context: TrainingContext, pool: Pool) -> Networks:
    """Both networks: with fresh weights drawn from the run's seed, or with those of the model that the recipe starts from."""
    torch.manual_seed(context.config.seed)
    method = context.settings(ScratchMethod)
    bos, eos = int(pool.empty[0]), int(pool.empty[1])
    text = build_text_encoder(method.text, pool.vocabulary.size, bos, eos)
    if method.start:
        load_text_encoder(method, text, pool.vocabulary)
    unet = load_unet(method) if method.start else build_unet(method)
    return Networks(unet.to(context.device), text.to(context.device))


def train_diffusion(context: TrainingContext, pool: Pool, networks: Networks) -> None:
    """Train or resume ``networks`` in place; at the end they hold their averages."""
    part = context.settings(ScratchMethod).diffusion
    both = torch.nn.ModuleDict({"unet": networks.unet, "text": networks.text}).train()
    optimizer = _optimizer(networks, part, context.settings(ScratchMethod).text.learning_rate_factor)
    average = WeightAverage(both, part.ema_decay)
    start = 0
    if saved := context.store(STAGE).latest():
        start = saved.step
        both.load_state_dict(under("weights", saved.tensors))
        average.load(under("average", saved.tensors))
        restore_optimizer(optimizer, saved.tensors)

    def state(step: int) -> Checkpoint:
        return Checkpoint(
            step,
            named("weights", both.state_dict()) | named("average", average.tensors) | optimizer_tensors(optimizer),
            {},
        )

    batches = BatchMaker(context, pool)
    clock = context.stage(STAGE, start, part.steps, state)
    for step in range(start, part.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_share(step, part)
        loss = diffusion_loss(context, networks, batches.objective, batches.make(step)).mean()
        torch.autograd.backward(loss)
        context.team.average_gradients(list(both.parameters()))
        norm = torch.nn.utils.clip_grad_norm_(both.parameters(), part.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % _EMA_EVERY == 0:
            average.update(both)
        clock.tick(step + 1, loss=loss.item(), gradient_norm=float(norm))
    if context.team.leads:
        context.store(STAGE).save(state(part.steps))
    average.copy_to(both)
    both.eval()


def averaged_networks(context: TrainingContext, pool: Pool) -> tuple[Networks, int]:
    """The averaged networks of the newest checkpoint and its step; fresh ones and 0 when there is none."""
    networks = build_networks(context, pool)
    both = torch.nn.ModuleDict({"unet": networks.unet, "text": networks.text}).eval()
    saved = context.store(STAGE).latest()
    if saved is None:
        return networks, 0
    both.load_state_dict(under("weights", saved.tensors))
    average = WeightAverage(both, 0.0)
    average.load(under("average", saved.tensors))
    average.copy_to(both)
    return networks, saved.step


def diffusion_loss(context: TrainingContext, networks: Networks, objective: Objective, batch: Batch) -> torch.Tensor:
    """Mean squared error of v for each picture, shape (n,)."""
    noised = objective.noised(batch.latents, batch.noise, batch.timesteps)
    with context.autocast():
        words = networks.text(batch.rows).last_hidden_state
        predicted = networks.unet(noised, batch.timesteps, words).sample
    target = objective.target(batch.latents, batch.noise, batch.timesteps)
    error: torch.Tensor = predicted.float() - target
    return error.square().mean(dim=(1, 2, 3))


def learning_rate_share(step: int, part: DiffusionPart) -> float:
    """Linear warm-up, a plateau, and a cosine to zero over the last ``decay_share`` of the steps."""
    if step < part.warmup:
        return (step + 1) / part.warmup
    plateau_end = part.steps * (1 - part.decay_share)
    if step < plateau_end:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - plateau_end) / max(part.steps - plateau_end, 1)))


class BatchMaker:
    """Batch of step s, a function of (seed, s)."""

    def __init__(self, context: TrainingContext, pool: Pool) -> None:
        self._context = context
        self._pool = pool
        self._part = context.settings(ScratchMethod).diffusion
        self.objective = Objective(build_scheduler(self._part).alphas_cumprod, self._part)

    def make(self, step: int) -> Batch:
        """Latents by shuffled passes over the pool; captions, timesteps and noise by the step's own generators."""
        seed, count, device = self._context.config.seed, self._part.batch, self._context.device
        indices = batch_indices(seed, "diffusion", step * count, count, len(self._pool.latents))
        rng = generator(seed, "diffusion/step", step)
        rows = self._rows(indices, rng)[:, : self._length(step)]
        timesteps = self.objective.timesteps(rng, count, late=step >= self._part.late_from * self._part.steps)
        latents = normalise(self._pool, torch.from_numpy(self._pool.latents[indices]).to(device))
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**62)))).to(device)
        mine = self._context.team.part(count)
        return Batch(
            latents[mine],
            noise[mine],
            torch.from_numpy(timesteps[mine]).to(device),
            torch.from_numpy(rows[mine].astype(np.int64)).to(device),
        )

    def _rows(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int32]:
        rows = self._pool.rows[indices, rng.integers(self._pool.rows.shape[1], size=len(indices))]
        changed = np.flatnonzero(rng.random(len(indices)) < self._part.unknown_words)
        rows = insert_unknown(rows, changed, self._pool.vocabulary.unknown, int(self._pool.empty[1]), rng)
        rows[rng.random(len(indices)) < self._part.caption_dropout] = self._pool.empty
        return rows

    def _length(self, step: int) -> int:
        text = self._context.settings(ScratchMethod).text
        return self._pool.rows.shape[-1] if step >= text.long_from * self._part.steps else text.short_length


def _optimizer(networks: Networks, part: DiffusionPart, text_factor: float) -> torch.optim.AdamW:
    groups = [
        {"params": list(networks.unet.parameters()), "peak": part.learning_rate},
        {"params": list(networks.text.parameters()), "peak": part.learning_rate * text_factor},
    ]
    return torch.optim.AdamW(
        groups, lr=part.learning_rate, betas=(0.9, 0.98), weight_decay=part.weight_decay, fused=True
    )
