"""Stage 3: teach the text encoder to read before the U-Net listens.

Trained jointly from nothing, cross-attention waits for an encoder that tells words apart while the encoder waits for a gradient through
cross-attention, and the text is ignored for a long time. A few hundred cheap steps of plain classification end that: linear heads on the mean
of the token vectors name everything that the captions tell apart. The heads are thrown away; the encoder goes on learning with the U-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel

from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext
from studio.training.counter import batch_indices, generator
from studio.training.methods.scratch.lessons import Lessons
from studio.training.methods.scratch.pool import Pool
from studio.training.methods.scratch.text import insert_unknown

STAGE = "reading"


def teach_reading(context: TrainingContext, lessons: Lessons, pool: Pool, text: CLIPTextModel) -> None:
    """Train ``text`` in place, or load what an earlier sitting taught it. The stage is short and has no checkpoints of its own."""
    file = context.run.path / "reading.safetensors"
    if not file.exists():
        _train(context, lessons, pool, text, file)
    text.load_state_dict(load_file(file))


def _train(context: TrainingContext, lessons: Lessons, pool: Pool, text: CLIPTextModel, file: Path) -> None:
    part, seed = context.settings(ScratchMethod).text, context.config.seed
    labels = torch.from_numpy(lessons.labels())
    torch.manual_seed(seed)
    heads = nn.Linear(part.width, sum(lessons.heads)).to(context.device)
    parameters = [*text.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=part.reading_rate, betas=(0.9, 0.98), weight_decay=0.01)
    clock = context.stage(STAGE, 0, part.reading_steps)
    text.train()
    for step in range(part.reading_steps):
        optimizer.param_groups[0]["lr"] = (
            part.reading_rate * min(1.0, (step + 1) / 50) * (1 - step / part.reading_steps)
        )
        indices = batch_indices(seed, "reading", step * part.reading_batch, part.reading_batch, len(pool.rows))
        rows = torch.from_numpy(_rows(context, pool, indices, step).astype(np.int64)).to(context.device)
        with context.autocast():
            scores = heads(text(rows).last_hidden_state.mean(dim=1))
        loss, right = score(
            scores.float(), labels[torch.from_numpy(indices)].to(context.device), lessons.heads, lessons.told
        )
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick(step + 1, loss=loss.item(), right=right)
    temporary = file.with_suffix(".tmp")
    save_file({name: value.detach().contiguous() for name, value in text.state_dict().items()}, temporary)
    temporary.replace(file)


def score(
    scores: torch.Tensor, labels: torch.Tensor, heads: Sequence[int], told: Sequence[int]
) -> tuple[torch.Tensor, float]:
    """Cross-entropy, summed over the ``heads``, of scores (n, classes of all heads) for labels (n, heads), and the share of right answers of
    those ``told``."""
    parts = torch.split(scores, list(heads), dim=1)
    loss = torch.stack([functional.cross_entropy(part, labels[:, i]) for i, part in enumerate(parts)]).sum()
    right = torch.stack([(parts[i].argmax(dim=1) == labels[:, i]).float().mean() for i in told]).mean()
    return loss, float(right)


def _rows(context: TrainingContext, pool: Pool, indices: npt.NDArray[np.int64], step: int) -> npt.NDArray[np.int32]:
    rng = generator(context.config.seed, "reading/step", step)
    rows = pool.rows[indices, rng.integers(pool.rows.shape[1], size=len(indices))]
    changed = np.flatnonzero(rng.random(len(indices)) < context.settings(ScratchMethod).diffusion.unknown_words)
    rows = insert_unknown(rows, changed, pool.vocabulary.unknown, int(pool.empty[1]), rng)
    return rows[:, : context.settings(ScratchMethod).text.short_length]
