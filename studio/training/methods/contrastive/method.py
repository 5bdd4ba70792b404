"""The clip method: pool of captions and drawings, contrastive training, export, evaluation. Later sittings skip or resume each."""

from __future__ import annotations

import json
from pathlib import Path

from studio.paths import REPOSITORY, atomic_write
from studio.schema.training import ClipMethod
from studio.training.card import fill_card
from studio.training.context import TrainingContext
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.methods.contrastive.evaluate import PICTURES, figures_table, measure
from studio.training.methods.contrastive.export import export_pair
from studio.training.methods.contrastive.pool import build_pool
from studio.training.methods.contrastive.train import train_clip_pair
from studio.training.publish import publish

EXPORT, EVALUATE = "export", "evaluate"


def train_clip(context: TrainingContext) -> Path:
    """Run or resume all stages; returns the finished folder, which holds its figures as ``figures.json``."""
    atlas = GlyphAtlas()
    if not context.team.leads:
        context.team.wait()
    pool = build_pool(context.alone(), atlas)
    if context.team.leads:
        context.team.wait()
    model = train_clip_pair(context, pool)
    if context.team.leads:
        clock = context.alone().stage(EXPORT, 0, 1)
        export_pair(context, model, pool.vocabulary)
        clock.tick(1)
        _evaluate(context.alone(), atlas)
    context.team.wait()
    return context.run.model


def _evaluate(context: TrainingContext, atlas: GlyphAtlas) -> None:
    """Measure the finished folder and put it, with its figures, where the recipe says."""
    method, folder = context.settings(ClipMethod), context.run.model
    clock = context.stage(EVALUATE, 0, PICTURES)
    figures = measure(folder, atlas, method.data.side, PICTURES, clock.tick)
    context.measured(EVALUATE, **figures)
    part = method.contrastive
    figures |= {"steps": part.steps, "pictures_a_step": part.batch}
    atomic_write(folder / "figures.json", json.dumps(figures, indent=2).encode() + b"\n")
    if context.config.export_to:
        target = REPOSITORY / context.config.export_to
        publish(folder, target)
        if (target / "README.md").exists():
            fill_card(target / "README.md", figures_table(figures))
