"""From a run's settings to a `Session`: data, base, caches, and the memory of what is not needed any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.errors import TrainingError
from studio.schema.training_data import DatasetSettings
from studio.schema.training_tuning import TuningMethod
from studio.training.context import TrainingContext
from studio.training.data.dataset import Dataset, read_dataset
from studio.training.runs import Noted
from studio.training.tuning.base import Base
from studio.training.tuning.batches import BatchMaker, Order, split
from studio.training.tuning.latents import LatentCache
from studio.training.tuning.learner import Learner
from studio.training.tuning.loop import STAGE, Session
from studio.training.tuning.objective import Objective
from studio.training.tuning.samples import Painter
from studio.training.tuning.texts import MOST_KEPT, KeptTexts, LiveTexts, Texts
from studio.training.tuning.validation import Validator

CAPTION_COUNT_BATCHES = 200_000
"""Batches whose captions are looked at to decide whether they can be kept; longer runs keep the encoders loaded when captions vary."""


@dataclass(frozen=True)
class Learning:
    """What a method adds to a session: what learns, and what is to be told of each batch."""

    learner: Learner
    on_batch: Callable[[int, slice, int], None] = lambda number, part, size: None


def open_dataset(context: TrainingContext, settings: DatasetSettings) -> Dataset:
    """The data set; a path that is not absolute is below the data folder. What cannot be used becomes a note."""
    path = Path(settings.path).expanduser()
    dataset = read_dataset(
        settings.model_copy(update={"path": str(path if path.is_absolute() else context.paths.root / path)})
    )
    if context.team.leads:
        for problem in dataset.problems:
            context.run.append(Noted(time=time.time(), message=problem))
    return dataset


def open_session(
    context: TrainingContext,
    method: TuningMethod,
    dataset: Dataset,
    base: Base,
    *,
    encoders_learn: bool,
    build: Callable[[Base], Learning],
) -> Session:
    """Encode what is missing, free what is done, and let `build` make of the base what learns.

    Raises `TrainingError` for a batch that the processes cannot share evenly or pictures that cannot be read.
    """
    if method.batch % context.team.size:
        raise TrainingError(f"A batch of {method.batch} cannot be shared evenly by {context.team.size} processes.")
    objective = Objective(base.model.alphas_cumprod, base.model.prediction_type, method.loss)
    parts = split(dataset, method.validation.share, context.config.seed)
    order = Order(parts.train, method.data, method.batch, context.config.seed)
    if context.team.leads:
        context.measured(STAGE, epoch_steps=order.batches_per_epoch / method.optimizer.accumulate)
    batches = BatchMaker(method, context.config.seed, order, objective, context.device)
    validator = Validator(context, method, base, objective, parts.held) if parts.held else None
    painter = Painter(context, method, base, encoders_learn=encoders_learn) if method.samples.prompts else None
    store = context.paths.training_caches
    latents = LatentCache(store / "latents", base.identity)
    if not context.team.leads:
        context.team.wait()
    latents.fill(context.alone(), base, [*batches.views(), *(validator.views() if validator else ())])
    texts = _texts(context.alone(), method, base, store / "texts", batches, validator, encoders_learn)
    if context.team.leads:
        context.team.wait()
    if painter:
        painter.rest()
    else:
        base.give_back(base.model.vae)
    if isinstance(texts, KeptTexts):
        base.give_back(*base.model.text_encoders)
    if method.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    learning = build(base)
    facts = {"base": base.identity, "data": dataset.digest}
    return Session(
        context,
        method,
        base,
        learning.learner,
        objective,
        batches,
        latents,
        texts,
        validator,
        painter,
        facts,
        learning.on_batch,
    )


def _texts(
    context: TrainingContext,
    method: TuningMethod,
    base: Base,
    folder: Path,
    batches: BatchMaker,
    validator: Validator | None,
    encoders_learn: bool,
) -> Texts:
    """Kept captions where the encoders are frozen and there are not too many different ones."""
    if encoders_learn:
        return LiveTexts(base.model, learning=True)
    wanted = set(validator.captions()) if validator else set()
    count = method.steps * method.optimizer.accumulate
    if count > CAPTION_COUNT_BATCHES:
        return LiveTexts(base.model, learning=False)
    for caption in batches.captions(range(count)):
        wanted.add(caption)
        if len(wanted) > MOST_KEPT:
            return LiveTexts(base.model, learning=False)
    kept = KeptTexts(folder, base, context.device)
    kept.fill(context, base, sorted(wanted))
    return kept
