"""From a run's settings to a `Session`: data, base, caches, and the memory of what is not needed any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from studio.errors import TrainingError
from studio.schema.training_data import DatasetSettings
from studio.schema.training_tuning import TuningMethod
from studio.training.context import TrainingContext
from studio.training.data.dataset import Dataset, Item, read_dataset
from studio.training.data.prepare import with_trigger
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
"""Batches whose captions are drawn to decide whether they can be kept; longer runs keep the encoders loaded when captions are shuffled."""


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
    captions = _captions(method, order.items, batches, validator)
    texts = _texts(context.alone(), base, store / "texts", captions, encoders_learn)
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
    context: TrainingContext, base: Base, folder: Path, captions: Iterable[str] | None, encoders_learn: bool
) -> Texts:
    """Kept captions where the encoders are frozen and there are not too many different ones."""
    if encoders_learn:
        return LiveTexts(base.model, learning=True)
    wanted: set[str] = set()
    for caption in captions or ():
        wanted.add(caption)
        if len(wanted) > MOST_KEPT:
            break
    if captions is None or len(wanted) > MOST_KEPT:
        return LiveTexts(base.model, learning=False)
    kept = KeptTexts(folder, base, context.device)
    kept.fill(context, base, sorted(wanted))
    return kept


def _captions(
    method: TuningMethod, items: Sequence[Item], batches: BatchMaker, validator: Validator | None
) -> Iterable[str] | None:
    """Every caption that the run may ask for; None where it would take too long to find them."""
    held = validator.captions() if validator else ()
    count = method.steps * method.optimizer.accumulate
    if not method.data.shuffle:
        fixed = {with_trigger(caption, method.data.trigger) for item in items for caption in item.captions}
        if len(fixed) <= count * method.batch:  # else the run sees only some of them
            return chain(held, fixed, [""] if method.data.caption_dropout else [])
    return chain(held, batches.captions(range(count))) if count <= CAPTION_COUNT_BATCHES else None
