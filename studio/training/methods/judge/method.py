"""The judge method: draw, train, test on unseen drawings, save. ``recipes/judge.toml`` is its recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from studio.paths import REPOSITORY
from studio.schema.training import JudgeMethod
from studio.training.checkpoint import Checkpoint, named, optimizer_tensors, restore_optimizer, under
from studio.training.context import TrainingContext
from studio.training.counter import batch_indices, generator
from studio.training.methods.judge.augment import PAINTED, half_worsened, worsen
from studio.training.methods.judge.judge import Judge, build_network, split_answers, to_tensor
from studio.training.methods.judge.network import JudgeNetwork, kind_scores
from studio.training.methods.judge.pool import Drawn, draw_unseen, training_pool
from studio.training.methods.judge.questions import UNASKED, targets
from studio.training.methods.judge.verdict import Share, tally, verdicts
from studio.training.publish import publish
from studio.training.schedule import warm_up_then_cosine

STAGE = "judge"
_UNSEEN = 1_000_003
"""Added to the seed for drawings that the judge is tested on."""
_ANSWER_WEIGHT = 0.3
"""Weight of each question beside the kinds of object, which are the hardest to tell."""


def train_judge(context: TrainingContext) -> Path:
    """Run or resume all stages; returns the finished folder. One process does it all, others of a team wait."""
    if context.team.leads:
        _make(context.alone())
    context.team.wait()
    return context.run.model


def _make(context: TrainingContext) -> None:
    method = context.settings(JudgeMethod)
    network = train_network(context, training_pool(context))
    judge = Judge(network, method.channels, method.data.side)
    unseen = draw_unseen(context.config.seed + _UNSEEN, method.data.unseen, method.data.side)
    accuracy = measure_accuracy(judge, unseen)
    context.measured(STAGE, **{question: share.value for question, share in accuracy.items()})
    facts = {"accuracy": {name: {"right": share.right, "of": share.count} for name, share in accuracy.items()}}
    judge.save(context.run.model, facts)
    if context.config.export_to:
        publish(context.run.model, REPOSITORY / context.config.export_to)


def train_network(context: TrainingContext, drawn: Drawn) -> JudgeNetwork:
    """Train or resume; the network learns from pictures made a little worse."""
    config, method = context.config, context.settings(JudgeMethod)
    torch.manual_seed(config.seed)
    network = build_network(method.channels).to(context.device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=method.learning_rate, betas=(0.9, 0.99), weight_decay=method.weight_decay, fused=True
    )
    start = 0
    if saved := context.store(STAGE).latest():
        start = saved.step
        network.load_state_dict(under("network", saved.tensors))
        restore_optimizer(optimizer, saved.tensors)

    def state(step: int) -> Checkpoint:
        return Checkpoint(step, named("network", network.state_dict()) | optimizer_tensors(optimizer), {})

    shares, labels = map(torch.from_numpy, targets(drawn.scenes))
    clock = context.stage(STAGE, start, method.steps, state)
    for step in range(start, method.steps):
        share = warm_up_then_cosine(step, method.steps, method.warmup)
        optimizer.param_groups[0]["lr"] = method.learning_rate * share
        rows = batch_indices(config.seed, STAGE, step * method.batch, method.batch, len(drawn.pictures))
        rng = torch.Generator().manual_seed(int(generator(config.seed, "judge/step", step).integers(2**62)))
        pictures = half_worsened(to_tensor(drawn.pictures[rows]), rng).to(context.device)
        with context.autocast():
            maps, scores = network(pictures)
        chosen = torch.from_numpy(rows)
        loss, right = judge_loss(maps, scores, shares[chosen].to(context.device), labels[chosen].to(context.device))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick(step + 1, loss=loss.item(), right=right)
    context.store(STAGE).save(state(method.steps))
    return network.eval()


def judge_loss(
    maps: torch.Tensor, scores: torch.Tensor, shares: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Cross-entropy with the kinds' ``shares`` and with each question's ``labels``, and how often the likeliest kind is there."""
    kinds = kind_scores(maps)
    loss = -(shares * kinds).sum(dim=1).mean()
    for column, part in enumerate(split_answers(scores).values()):
        asked = labels[:, column]
        count = (asked != UNASKED).sum().clamp(min=1)
        loss = (
            loss + _ANSWER_WEIGHT * functional.cross_entropy(part, asked, ignore_index=UNASKED, reduction="sum") / count
        )
    right = shares.gather(1, kinds.argmax(dim=1, keepdim=True)) > 0
    return loss, float(right.float().mean())


def measure_accuracy(judge: Judge, drawn: Drawn) -> dict[str, Share]:
    """Right verdicts by question on drawings, and, with ``_painted`` added to the name, on the same made to look painted."""
    rng = torch.Generator().manual_seed(0)
    painted = [
        (worsen(to_tensor(drawn.pictures[row : row + 1]), rng, PAINTED)[0].permute(1, 2, 0) + 1).mul(127.5).round()
        for row in range(len(drawn.pictures))
    ]
    softened = np.stack([picture.numpy().astype(np.uint8) for picture in painted])
    found: dict[str, Share] = {}
    for suffix, pictures in (("", drawn.pictures), ("_painted", softened)):
        seen = judge.look(list(pictures))
        shares = tally(verdicts(scene, each) for scene, each in zip(drawn.scenes, seen, strict=True))
        found |= {question + suffix: share for question, share in shares.items()}
    return found
