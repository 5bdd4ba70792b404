"""What a training method gets to work with: the configuration, the run folder, a clock that saves and reports, and the wish to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from studio.errors import TrainingError
from studio.paths import Paths
from studio.schema.training import TrainingConfig
from studio.schema.training_parts import MethodSettings
from studio.training.checkpoint import Checkpoint, CheckpointStore
from studio.training.parallel import Team
from studio.training.runs import Measured, RunFolder, StageProgress, StageStarted

REPORT_SECONDS = 5.0
STOP_POLL_SECONDS = 1.0
Settings = TypeVar("Settings", bound=MethodSettings)


class StopTraining(Exception):
    """The run was asked to stop and its state is saved."""


@dataclass
class TrainingContext:
    """One sitting of one run. ``interrupted`` is asked between steps, as is the run folder's stop file."""

    config: TrainingConfig
    run: RunFolder
    interrupted: Callable[[], bool] = lambda: False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    team: Team = field(default_factory=Team)

    def settings(self, method: type[Settings]) -> Settings:
        """The settings of the run's method. Raises ``TrainingError`` when the run is of another one."""
        found = self.config.method
        if not isinstance(found, method):
            raise TrainingError(
                f"{self.run.path} is a run of the method {found.kind!r}; {method.__name__} is needed here."
            )
        return found

    @property
    def paths(self) -> Paths:
        """The installation that the run belongs to."""
        return Paths(self.run.root)

    def autocast(self) -> AbstractContextManager[object]:
        """Forward passes run inside this."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def store(self, stage: str) -> CheckpointStore:
        return CheckpointStore(self.run.checkpoints / stage, self.config.keep)

    def alone(self) -> TrainingContext:
        """The same for a stage that only the leading process runs."""
        return replace(self, team=Team())

    def measured(self, stage: str, **values: float) -> None:
        """Record a measurement in the events."""
        self.run.append(Measured(time=time.time(), stage=stage, values=values))

    def stage(self, name: str, step: int, total: int, state: Callable[[int], Checkpoint] | None = None) -> StageClock:
        """Begin a stage at ``step`` of ``total``; ``state(step)`` makes the checkpoint that the clock saves."""
        return StageClock(self, name, step, total, state)


class StageClock:
    """Called once after each step: reports every few seconds, saves every few minutes, and ends the sitting when asked to."""

    def __init__(
        self, context: TrainingContext, name: str, step: int, total: int, state: Callable[[int], Checkpoint] | None
    ) -> None:
        self._context = context
        self._name = name
        self._total = total
        self._state = state
        now = time.monotonic()
        self._reported = self._saved = self._polled = now
        self._reported_step = self._saved_step = step
        self._sums: dict[str, float] = {}
        self._count = 0
        if context.team.leads:
            context.run.append(StageStarted(time=time.time(), stage=name, step=step, total=total))

    def tick(self, step: int, **values: float) -> None:
        """``step`` steps are done. Raises ``StopTraining`` after saving, and ``TrainingError`` for a loss that is not finite."""
        for key, value in values.items():
            if value != value or abs(value) == float("inf"):
                raise TrainingError(f"{self._name}: {key} is {value} at step {step}; the last good state is kept.")
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS or step == self._total:
            self._report(step, now)
        if self._context.team.any(self._wants_to_stop(now)):
            self.save(step)
            raise StopTraining
        if now - self._saved >= self._context.config.save_minutes * 60:
            self._saved = now
            self.save(step)

    def _wants_to_stop(self, now: float) -> bool:
        if now - self._polled < STOP_POLL_SECONDS:
            return False
        self._polled = now
        return self._context.interrupted() or self._context.run.stop_requested()

    def save(self, step: int) -> None:
        """Save the state after ``step`` now, unless that was the last that was saved."""
        if self._state is not None and self._context.team.leads and step != self._saved_step:
            self._context.store(self._name).save(self._state(step))
            self._saved_step = step

    def _report(self, step: int, now: float) -> None:
        rate = (step - self._reported_step) / max(now - self._reported, 1e-9)
        averages = {key: total / self._count for key, total in self._sums.items()}
        event = StageProgress(
            time=time.time(),
            stage=self._name,
            step=step,
            total=self._total,
            per_second=rate,
            eta_s=(self._total - step) / max(rate, 1e-9),
            values=averages,
        )
        if self._context.team.leads:
            self._context.run.append(event)
        self._reported, self._reported_step, self._sums, self._count = now, step, {}, 0
