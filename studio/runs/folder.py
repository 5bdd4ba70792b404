"""What a run's folder says of its state, and the run's place in the queue. Reading only, but for the queue's file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import StorageError, StudioError
from studio.paths import atomic_write
from studio.runs.summary import SummaryReader
from studio.schema.runs import RunRecord, RunState, RunSummary
from studio.schema.training import TrainingConfig
from studio.schema.training_tuning import TuningMethod
from studio.training.runs import COMMANDS, RunFolder
from studio.training.sitting import Sitting, last_sitting

FORCE_SECONDS = 30.0
"""How long a run may take to stop before it may be stopped by force."""
PAINTING = "painting"
"""Why a run pauses when it pauses for a picture; a pause that the user wished says nothing."""


def run_folders(runs: Path) -> Iterator[RunFolder]:
    """All folders below `runs` that hold a configuration, in no order. Names that begin with a dot are the trash and half-made things."""
    try:
        entries = list(runs.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(".") and (entry / "config.json").is_file():
            yield RunFolder(entry)


def queued_at(run: RunFolder) -> float | None:
    """When the run was put into the queue, Unix seconds; None when it does not wait."""
    try:
        return float(json.loads((run.path / "queued.json").read_text("utf-8"))["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def put_in_queue(run: RunFolder) -> None:
    """Let the run wait for its turn. Raises `StorageError`."""
    atomic_write(run.path / "queued.json", json.dumps({"at": time.time()}).encode())


def take_from_queue(run: RunFolder) -> None:
    """Let it wait no more."""
    (run.path / "queued.json").unlink(missing_ok=True)


@dataclass
class RunView:
    """One run as it is known: its folder, its configuration (None: unreadable), and a reader of its events."""

    folder: RunFolder
    config: TrainingConfig | None
    problem: str
    created: float
    reader: SummaryReader
    sitting: Sitting | None = None
    summary: RunSummary = field(default_factory=RunSummary)
    living: bool = False
    started_here: bool = False
    """A process was started for it that has not sat down yet."""
    before: Sitting | None = None
    """Who had sat at it before that process was started."""

    @classmethod
    def of(cls, folder: RunFolder) -> RunView:
        """Read what does not change."""
        config, problem = None, ""
        try:
            config = folder.config()
        except StudioError as error:
            problem = error.message
        try:
            created = (folder.path / "config.json").stat().st_mtime
        except OSError:
            created = 0.0
        return cls(folder, config, problem, created, SummaryReader(folder))

    def refresh(self) -> None:
        """Read process and events again. The process first: what it writes before it dies is then not missed."""
        self.sitting = last_sitting(self.folder)
        self.living = bool(self.sitting and self.sitting.process())
        self.summary = self.reader.read()

    @property
    def active(self) -> bool:
        """Whether a process trains it, or is about to."""
        return self.living or self.started_here

    @property
    def obeys(self) -> tuple[str, ...]:
        """The wishes that its method understands."""
        method = self.config.method if self.config else None
        return COMMANDS if isinstance(method, TuningMethod) else ("stop",)

    def state(self) -> RunState:
        """See `RunRecord`. An ending that was written before the last process began does not count."""
        if self.active:
            return "paused" if self.summary.paused else "running"
        if queued_at(self.folder) is not None:
            return "queued"
        if self.summary.ending and (self.sitting is None or self.summary.offset > self.sitting.offset):
            return self.summary.ending
        never_ran = self.sitting is None and self.summary.offset == 0
        return "stopped" if never_ran else "interrupted"

    def record(self, position: int | None, loras: Path) -> RunRecord:
        """The run as it is shown."""
        method, state = (self.config.method if self.config else None), self.state()
        tuning = method if isinstance(method, TuningMethod) else None
        stopping = self.active and self.folder.asked("stop")
        return RunRecord(
            id=self.folder.id,
            name=self.config.name if self.config else self.folder.id,
            method=method.kind if method else "",
            model=tuning.model if tuning else "",
            state=state,
            created=self.created,
            position=position,
            pid=self.sitting.pid if self.sitting and self.living else None,
            stopping=stopping,
            force_at=self._asked_to_stop_at() + FORCE_SECONDS if stopping else None,
            paused_for_painting=self.active and self.folder.why_asked("pause") == PAINTING,
            obeys=self.obeys if self.active else (),
            lora=_lora_name(self.summary.model, loras) if state == "finished" else None,
            trigger=tuning.data.trigger if tuning else "",
            problem=self.problem,
            summary=self.summary,
        )

    def _asked_to_stop_at(self) -> float:
        try:
            return (self.folder.path / "control" / "stop").stat().st_mtime
        except OSError:
            return time.time()

    def may_be_forced(self) -> bool:
        """Whether it was asked to stop long enough ago."""
        return self.folder.asked("stop") and time.time() >= self._asked_to_stop_at() + FORCE_SECONDS


def trash(run: RunFolder) -> Path:
    """Move the run's folder out of sight, into `.trash` beside it; its new place. Raises `StorageError`."""
    folder = run.path.parent / ".trash"
    target = folder / f"{run.id}-{time.time_ns()}"
    try:
        folder.mkdir(exist_ok=True)
        run.path.rename(target)
    except OSError as error:
        raise StorageError(f"{run.id} could not be moved to {folder}: {error.strerror or error}.") from error
    return target


def _lora_name(model: str, loras: Path) -> str | None:
    """`duotone` for `loras/duotone.safetensors`; None for what is no LoRA in that folder, or is gone."""
    path = Path(model)
    if path.suffix != ".safetensors" or not path.is_relative_to(loras) or not path.is_file():
        return None
    return path.relative_to(loras).with_suffix("").as_posix()
