"""The training loop of all methods that train a checkpoint further.

A step is a function of the weights, the optimizer's state and (seed, step); those and a few counts are what a checkpoint holds, so that a run
that was stopped or killed anywhere ends with the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.engine.hardware import resident_bytes
from studio.errors import TrainingError
from studio.schema.training_tuning import TuningMethod
from studio.training.checkpoint import Checkpoint, Tensors, named, under
from studio.training.context import StageClock, TrainingContext
from studio.training.methods.scratch.average import WeightAverage
from studio.training.runs import Command, CommandDone, Noted, StepDone, StepSkipped, Validated
from studio.training.schedule import rate_share
from studio.training.tuning.base import Base
from studio.training.tuning.batches import BatchMaker
from studio.training.tuning.latents import LatentCache
from studio.training.tuning.learner import Learner
from studio.training.tuning.loss import picture_losses
from studio.training.tuning.objective import Objective
from studio.training.tuning.optimizers import build_optimizer, load_optimizer, save_optimizer, set_rates
from studio.training.tuning.samples import Painter
from studio.training.tuning.texts import Texts
from studio.training.tuning.validation import Validator

STAGE = "train"
BAD_STEPS = 3
"""Steps in a row without finite numbers that end a run."""
PAUSE_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Session:
    """All that the loop works with."""

    context: TrainingContext
    method: TuningMethod
    base: Base
    learner: Learner
    objective: Objective
    batches: BatchMaker
    latents: LatentCache
    texts: Texts
    validator: Validator | None
    painter: Painter | None
    facts: dict[str, str]
    """What the run is about (base, data); a checkpoint made of something else is refused."""
    on_batch: Callable[[int, slice, int], None] = lambda number, part, size: None
    """Told before each batch: its number, this process's part, and its size."""


@dataclass
class Progress:
    """What is remembered beside weights and optimizer: the best validation loss, how long ago that was, bad steps in a row."""

    best: float = math.inf
    worse: int = 0
    bad: int = 0
    best_weights: Tensors = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """For the checkpoint's manifest."""
        return {"best": None if math.isinf(self.best) else self.best, "worse": self.worse, "bad": self.bad}


class Loop:
    """One sitting. `export(step, is_final)` writes the result as the weights are now and returns where it is; every process calls it."""

    def __init__(self, session: Session, export: Callable[[int, bool], Path]) -> None:
        self._session = session
        self._context = session.context
        self._method = session.method
        self._learner = session.learner
        self._export = export
        self._optimizer = build_optimizer(
            self._learner.groups(self._method.optimizer.learning_rate), self._method.optimizer, self._context.device
        )
        self._average = WeightAverage(self._learner, self._method.ema_decay) if self._method.ema_decay else None
        self._progress = Progress()
        self._start = self._restore()

    def run(self) -> Path:
        """Train to the end and export. Raises `StopTraining` when asked to stop, `TrainingError` when it cannot go on; state is kept."""
        clock = self._context.stage(STAGE, self._start, self._method.steps, self._state)
        step = self._start
        try:
            if step == 0:
                self._look(0)
            while step < self._method.steps and not self._is_done():
                self._step(step)
                step += 1
                self._look(step)
                self._obey(step, clock)
                clock.tick(step)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{self._context.device} ran out of memory at step {step}. The last checkpoint is kept. Lower the batch or the resolution, or turn "
                "gradient_checkpointing on."
            ) from error
        clock.save(step)
        if self._progress.best_weights:
            self._learner.load(self._progress.best_weights)
            self._learner.mode(training=False)
            return self._export(step, True)
        with self._learner.averaged(self._average):
            return self._export(step, True)

    # -- one step ------------------------------------------------------------------------------------------------------

    def _step(self, step: int) -> None:
        began = time.monotonic()
        rate = set_rates(self._optimizer, rate_share(self._method.rate, step, self._method.steps))
        self._learner.mode(training=True)
        (loss,) = self._context.team.total(self._backward(step) / self._context.team.size)
        self._context.team.average_gradients(self._learner.parameters)
        norm = clipped(self._learner.parameters, self._method.optimizer.clip_norm)
        if math.isfinite(loss) and math.isfinite(norm):
            self._optimizer.step()
            if self._average:
                self._average.update(self._learner)
            self._progress.bad = 0
            memory = self._memory()
            seconds = time.monotonic() - began
            self._tell(
                StepDone(
                    time=time.time(), step=step + 1, loss=loss, rate=rate, norm=norm, seconds=seconds, memory=memory
                )
            )
        else:
            self._skip(step + 1, loss)
        self._optimizer.zero_grad(set_to_none=True)

    def _backward(self, step: int) -> float:
        """Gradients of all batches of a step, and the mean of their losses; both of this process's part."""
        session, count = self._session, self._method.optimizer.accumulate
        part, total = self._context.team.part(self._method.batch), 0.0
        for number in range(step * count, (step + 1) * count):
            session.on_batch(number, part, self._method.batch)
            batch = session.batches.make(number, part, session.latents, session.texts)
            loss = picture_losses(self._context, session.base, session.objective, batch).mean() / count
            torch.autograd.backward(loss)
            total += loss.item()
        return total

    def _skip(self, step: int, loss: float) -> None:
        self._progress.bad += 1
        reason = "the loss is no finite number" if not math.isfinite(loss) else "the gradient is no finite number"
        self._tell(StepSkipped(time=time.time(), step=step, reason=reason))
        if self._progress.bad >= BAD_STEPS:
            saved = self._context.store(STAGE).latest_step()
            kept = f"the checkpoint of step {saved} is kept" if saved else "there was no checkpoint yet"
            raise TrainingError(
                f"{BAD_STEPS} steps in a row, up to step {step}, gave no numbers ({reason}); {kept}. Lower the learning rate, or train in fp32."
            )

    # -- between steps -------------------------------------------------------------------------------------------------

    def _look(self, step: int) -> None:
        """Validation and samples that are due."""
        session, last = self._session, step == self._method.steps
        with self._learner.averaged(self._average):
            if session.validator and (step % self._method.validation.every == 0 or last):
                self._validate(step, session.validator)
            if session.painter and (step % self._method.samples.every == 0 or last):
                self._paint(step, session.painter)

    def _paint(self, step: int, painter: Painter) -> None:
        """The leading process paints, the others wait."""
        if self._context.team.leads:
            painter.paint(step)
        self._context.team.wait()

    def _validate(self, step: int, validator: Validator) -> None:
        loss = validator.loss(self._session.latents, self._session.texts)
        progress = self._progress
        best = loss < progress.best
        progress.worse = 0 if best else progress.worse + 1
        if best:
            progress.best = loss
            if self._method.validation.patience:
                progress.best_weights = self._learner.copies()
        if math.isfinite(loss):
            self._tell(Validated(time=time.time(), step=step, loss=loss, best=best))

    def _is_done(self) -> bool:
        patience = self._method.validation.patience
        return bool(patience) and self._progress.worse >= patience

    def _obey(self, step: int, clock: StageClock) -> None:
        """Do what was put into the run's control folder; the team does it together."""
        save, sample, pause = self._heard()
        if save:
            clock.save(step)
            with self._learner.averaged(self._average):
                path = self._export(step, False)
            self._done("save", "saved", step)
            self._tell(Noted(time=time.time(), message=f"The result of step {step} is in {path.name}."))
        if sample:
            if self._session.painter:
                with self._learner.averaged(self._average):
                    self._paint(step, self._session.painter)
            self._done("sample", "sampled", step)
        if pause:
            self._pause(step, clock)

    def _pause(self, step: int, clock: StageClock) -> None:
        clock.save(step)
        self._move(torch.device("cpu"))
        self._tell(CommandDone(time=time.time(), name="paused", step=step))
        while self._heard()[2] and not self._context.team.any(
            self._context.interrupted() or self._context.run.stop_requested()
        ):
            time.sleep(PAUSE_POLL_SECONDS)
        self._move(self._context.device)
        self._tell(CommandDone(time=time.time(), name="resumed", step=step))

    def _heard(self) -> tuple[bool, bool, bool]:
        """Whether the run is to save, to sample, to pause. The leading process reads, so that all do the same."""
        wishes: tuple[Command, ...] = ("save", "sample", "pause")
        if self._context.team.leads and self._context.run.abandoned("pause"):
            self._context.run.withdraw("pause")  # whoever painted a picture meanwhile was killed over it
        asked = [self._context.team.leads and self._context.run.asked(wish) for wish in wishes]
        save, sample, pause = self._context.team.total(*map(float, asked))
        return bool(save), bool(sample), bool(pause)

    def _done(self, wish: Command, name: Any, step: int) -> None:
        if self._context.team.leads:
            self._context.run.withdraw(wish)
        self._tell(CommandDone(time=time.time(), name=name, step=step))
        self._context.team.wait()

    def _move(self, device: torch.device) -> None:
        """Take everything off the device, or put it back; nothing to do on a CPU."""
        if self._context.device.type == "cpu":
            return
        for module in (self._session.base.unet, *self._session.base.model.text_encoders):
            if not any(parameter.is_meta for parameter in module.parameters()):
                module.to(device)
        for state in self._optimizer.state.values():
            state.update(
                {
                    name: value.to(device)
                    for name, value in state.items()
                    if isinstance(value, torch.Tensor) and value.ndim
                }
            )
        self._session.base.hardware.free()

    # -- state ---------------------------------------------------------------------------------------------------------

    def _state(self, step: int) -> Checkpoint:
        tensors = named("weights", self._learner.state_dict()) | save_optimizer(self._optimizer)
        tensors |= named("best", self._progress.best_weights)
        if self._average:
            tensors |= named("average", self._average.tensors)
        return Checkpoint(step, tensors, {**self._session.facts, **self._progress.facts()})

    def _restore(self) -> int:
        """The step to go on from. Raises `TrainingError` when the checkpoint is of another base or other pictures."""
        saved = self._context.store(STAGE).latest()
        if saved is None:
            return 0
        for name, value in self._session.facts.items():
            if saved.facts.get(name) != value:
                raise TrainingError(
                    f"The {name} has changed since step {saved.step} of this run ({saved.facts.get(name)} then, {value} now): put back what was "
                    "there, or start a run of another name."
                )
        self._learner.load(under("weights", saved.tensors))
        load_optimizer(self._optimizer, saved.tensors)
        if self._average:
            self._average.load(under("average", saved.tensors))
        best = saved.facts.get("best")
        self._progress = Progress(
            best=math.inf if best is None else best,
            worse=saved.facts.get("worse", 0),
            bad=saved.facts.get("bad", 0),
            best_weights=under("best", saved.tensors),
        )
        return saved.step

    def _memory(self) -> int:
        return self._session.base.hardware.memory() if self._context.device.type == "cuda" else resident_bytes()

    def _tell(self, event: Any) -> None:
        if self._context.team.leads:
            self._context.run.append(event)


def clipped(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale the gradients of `parameters` so that their common norm is at most `limit`; returns the norm before."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
