"""Stage 3: train both towers together on the pool."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import CLIPModel

from studio.errors import TrainingError
from studio.schema.training import ClipMethod, ContrastivePart
from studio.training.checkpoint import Checkpoint, named, optimizer_tensors, restore_optimizer, under
from studio.training.context import TrainingContext
from studio.training.counter import batch_indices, generator
from studio.training.methods.contrastive.augment import augment
from studio.training.methods.contrastive.model import LARGEST_SCALE, build_clip, caption_vectors, picture_vectors
from studio.training.methods.contrastive.objective import contrastive_loss
from studio.training.methods.contrastive.pool import Pool
from studio.training.methods.scratch.average import WeightAverage
from studio.training.methods.scratch.text import insert_unknown
from studio.training.schedule import warm_up_then_cosine

STAGE = "contrastive"
_EMA_EVERY = 4


@dataclass(frozen=True)
class Batch:
    """What one process sees of a step, and what all must know of it.

    ``pictures`` (m, 3, side, side) in [-1, 1] and ``rows`` (2, m, length), the right captions and the wrong ones, are this process's m;
    ``same`` (n, n) is about the whole batch: which captions tell the same.
    """

    pictures: torch.Tensor
    rows: torch.Tensor
    same: torch.Tensor


def train_clip_pair(context: TrainingContext, pool: Pool) -> CLIPModel:
    """Train or resume; returns the averaged pair over the compact vocabulary.

    Raises ``TrainingError`` when the processes cannot share a batch evenly.
    """
    method = context.settings(ClipMethod)
    part = method.contrastive
    if part.batch % context.team.size:
        raise TrainingError(
            f"contrastive.batch = {part.batch} cannot be shared evenly by {context.team.size} processes."
        )
    torch.manual_seed(context.config.seed)
    model = build_clip(method, pool.vocabulary.size, pool.bos, pool.eos).to(context.device).train()
    model.set_attn_implementation("eager")  # backward on a CPU in half the time of the fused one, at so few tokens
    optimizer = _optimizer(model, part)
    average = WeightAverage(model, part.ema_decay)
    start = 0
    if saved := context.store(STAGE).latest():
        start = saved.step
        model.load_state_dict(under("weights", saved.tensors))
        average.load(under("average", saved.tensors))
        restore_optimizer(optimizer, saved.tensors)

    def state(step: int) -> Checkpoint:
        tensors = named("weights", model.state_dict()) | named("average", average.tensors)
        return Checkpoint(step, tensors | optimizer_tensors(optimizer), {})

    batches = BatchMaker(context, pool)
    clock = context.stage(STAGE, start, part.steps, state)
    for step in range(start, part.steps):
        for group in optimizer.param_groups:
            group["lr"] = part.learning_rate * warm_up_then_cosine(step, part.steps, part.warmup)
        loss, right = batch_loss(context, model, batches.make(step))
        torch.autograd.backward(loss)
        context.team.average_gradients(list(model.parameters()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), part.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(LARGEST_SCALE))
        if (step + 1) % _EMA_EVERY == 0:
            average.update(model)
        clock.tick(step + 1, loss=loss.item(), right=right.item())
    if context.team.leads:
        context.store(STAGE).save(state(part.steps))
    average.copy_to(model)
    return model.eval()


def batch_loss(context: TrainingContext, model: CLIPModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the whole batch, and the share of its pictures that pick their caption."""
    with context.autocast():
        pictures = picture_vectors(model, batch.pictures)
        captions, wrong = caption_vectors(model, batch.rows.flatten(0, 1)).chunk(2)
    pictures, captions, wrong = (context.team.gather(part) for part in (pictures, captions, wrong))
    return contrastive_loss(pictures, captions, wrong, batch.same, model.logit_scale.exp())


class BatchMaker:
    """Batch of step s, a function of (seed, s) and of how many processes share it."""

    def __init__(self, context: TrainingContext, pool: Pool) -> None:
        self._context = context
        self._pool = pool
        self._part = context.settings(ClipMethod).contrastive

    def make(self, step: int) -> Batch:
        """Pictures by shuffled passes over the pool; captions and changes by the step's own generators."""
        seed, count, team = self._context.config.seed, self._part.batch, self._context.team
        indices = batch_indices(seed, "contrastive", step * count, count, len(self._pool.pictures))
        rows = self._rows(indices, generator(seed, "contrastive/step", step))
        mine = team.part(count)
        shown = torch.from_numpy(self._pool.pictures[indices[mine]]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        changes = generator(seed, f"contrastive/augment/{team.rank}", step)
        device = self._context.device
        return Batch(
            augment(shown, changes).to(device),
            torch.from_numpy(rows[:, mine].astype(np.int64)).to(device),
            torch.from_numpy(same_caption(self._pool.meanings[indices], rows[0])).to(device),
        )

    def _rows(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """A right and a wrong caption of each picture, (2, n, length); both get unknown words alike, so that these tell nothing."""
        choices = self._pool.captions.shape[1]
        rows = np.stack(
            [
                texts[indices, rng.integers(choices, size=len(indices))]
                for texts in (self._pool.captions, self._pool.wrong)
            ]
        )
        flat = rows.reshape(-1, rows.shape[-1])
        changed = np.flatnonzero(rng.random(len(flat)) < self._part.unknown_words)
        return insert_unknown(flat, changed, self._pool.vocabulary.unknown, self._pool.eos, rng).reshape(rows.shape)


def same_caption(meanings: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """(n, n): whether captions i and j are of scenes with one meaning (n,), or the same words, ``rows`` (n, length)."""
    texts = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    alike: npt.NDArray[np.bool_] = (meanings[:, None] == meanings) | (texts[:, None] == texts)
    return alike


def _optimizer(model: CLIPModel, part: ContrastivePart) -> torch.optim.AdamW:
    """AdamW that decays matrices, but no gains, biases and embeddings of single things (the class vector and the logit scale)."""
    groups: Iterator[list[nn.Parameter]] = (
        [weight for weight in model.parameters() if (weight.ndim > 1) is decayed] for decayed in (True, False)
    )
    decays = (part.weight_decay, 0.0)
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True)],
        lr=part.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
