"""Run folders: the truth about a training run on disk, readable without torch.

<runs>/<name>-<digest>/
    config.json       the frozen configuration
    events.jsonl      one JSON object a line, appended (see ``Event``)
    log.txt           what the worker printed
    control/NAME      put there by whoever wants something of the run (see ``COMMANDS``), read between two steps
    process.json      which process trains or trained last (see ``studio.training.sitting``)
    checkpoints/      resumable state of the stage under way
    model/            the finished diffusers folder
    samples/          pictures painted while it trains
    result.json       what the methods that train a checkpoint further have made
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from studio.errors import TrainingError
from studio.paths import atomic_write, storage_error
from studio.schema.training import TrainingConfig, load_training_config, parse_training_config


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)
    time: float = Field(description="Unix time in seconds")


class RunStarting(_Event):
    """A process was started for the run: said by whoever started it, since the process itself is silent until its libraries are loaded."""

    kind: Literal["starting"] = "starting"


class StageStarted(_Event):
    """A stage began or was resumed at ``step``."""

    kind: Literal["stage"] = "stage"
    stage: str
    step: int
    total: int


class StageProgress(_Event):
    """Where a stage stands. ``values`` holds named measurements, such as the loss averaged since the last event."""

    kind: Literal["progress"] = "progress"
    stage: str
    step: int
    total: int
    per_second: float
    eta_s: float
    values: dict[str, float] = {}


class Measured(_Event):
    """A measurement worth keeping, e.g. the PSNR of the autoencoder."""

    kind: Literal["measured"] = "measured"
    stage: str
    values: dict[str, float]


class StepDone(_Event):
    """One optimizer step. After a crash the steps since the last checkpoint are told once more; the later line counts."""

    kind: Literal["step"] = "step"
    step: int
    loss: float = Field(description="Mean over the batches of the step, weighted as it is trained")
    rate: float = Field(description="Learning rate of the first group")
    norm: float = Field(description="Gradient norm before it was clipped")
    seconds: float
    memory: int = Field(description="Bytes: allocated on the GPU, else resident in the process")


class StepSkipped(_Event):
    """A step changed nothing, because its loss or gradient was no number."""

    kind: Literal["skipped"] = "skipped"
    step: int
    reason: str


class Validated(_Event):
    """The loss on the pictures that were kept back; ``best`` when none was lower before."""

    kind: Literal["validated"] = "validated"
    step: int
    loss: float
    best: bool


class SamplePainted(_Event):
    """A picture painted while training; ``file`` is relative to the run folder."""

    kind: Literal["sample"] = "sample"
    step: int
    index: int
    file: str


class CommandDone(_Event):
    """A wish that was put into ``control/`` has been met: ``paused``, ``resumed``, ``saved`` or ``sampled``."""

    kind: Literal["command"] = "command"
    name: Literal["paused", "resumed", "saved", "sampled"]
    step: int


class Noted(_Event):
    """Something the user may want to know."""

    kind: Literal["note"] = "note"
    message: str


class RunFinished(_Event):
    """The run is complete; ``model`` is the finished folder or file."""

    kind: Literal["finished"] = "finished"
    model: str


class RunStopped(_Event):
    """The run was asked to stop, saved its state and can be resumed."""

    kind: Literal["stopped"] = "stopped"


class RunFailed(_Event):
    """The run ended with an error; what it had saved stays."""

    kind: Literal["failed"] = "failed"
    message: str


Event = Annotated[
    RunStarting
    | StageStarted
    | StageProgress
    | Measured
    | StepDone
    | StepSkipped
    | Validated
    | SamplePainted
    | CommandDone
    | Noted
    | RunFinished
    | RunStopped
    | RunFailed,
    Field(discriminator="kind"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_LONGEST_LINE = 1 << 20
Command = Literal["stop", "pause", "save", "sample"]
COMMANDS: tuple[Command, ...] = get_args(Command)
"""What a run can be asked: to save and end; to wait while the file is there; to save its state and its result so far; to paint the samples."""


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def id(self) -> str:
        """How other files name the run."""
        return self.path.name

    @property
    def root(self) -> Path:
        """The data folder of the installation: runs lie in its ``outputs/runs``."""
        return self.path.absolute().parents[2]

    def config(self) -> TrainingConfig:
        """The frozen configuration; raises ``TrainingError`` when this is no run folder."""
        file = self.path / "config.json"
        try:
            data: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.path} is no run folder: {error}.") from error
        return parse_training_config(data, str(file))

    def whole_lines(self) -> int:
        """Cut off a line of events that a killed process left half written; how many bytes there are then.

        For whoever knows that no process writes.
        """
        if not self.events.exists():
            return 0
        with self.events.open("r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            while end:
                begin = max(0, end - (1 << 16))
                stream.seek(begin)
                at = stream.read(end - begin).rfind(b"\n")
                if at >= 0:
                    end = begin + at + 1
                    break
                end = begin
            stream.truncate(end)
        return end

    def append(self, event: Event) -> None:
        """Add one event; a line is written whole."""
        with self.events.open("a", encoding="utf-8") as stream:
            stream.write(event.model_dump_json() + "\n")

    def asked(self, command: Command) -> bool:
        return (self.path / "control" / command).exists()

    def ask(self, command: Command, why: str = "", *, until_gone: int | None = None) -> None:
        """Wish something of the worker; it is done after the step that it is at.

        ``why`` is for ``why_asked``, ``until_gone`` the process that takes the wish back, for ``abandoned``.
        """
        words = why if until_gone is None else f"{why}\n{until_gone}"
        atomic_write(self.path / "control" / command, words.encode())

    def why_asked(self, command: Command) -> str | None:
        """Why something is wished of the worker; None when it is not."""
        words = self._wish(command)
        return None if words is None else words.partition("\n")[0]

    def abandoned(self, command: Command) -> bool:
        """Whether something is wished by a process that is no more, so that nobody will take it back."""
        pid = (self._wish(command) or "").partition("\n")[2]
        return pid.isdecimal() and not psutil.pid_exists(int(pid))

    def _wish(self, command: Command) -> str | None:
        try:
            return (self.path / "control" / command).read_text("utf-8")
        except OSError:
            return None

    def withdraw(self, command: Command) -> None:
        """Take a wish back, or strike it off when it has been met."""
        (self.path / "control" / command).unlink(missing_ok=True)

    def forget_wishes(self) -> None:
        """Take back whatever was wished."""
        for command in COMMANDS:
            self.withdraw(command)

    def stop_requested(self) -> bool:
        return self.asked("stop")

    def request_stop(self) -> None:
        """Ask the worker to save and end at its next step."""
        self.ask("stop")


def prepare_run(config_path: Path, runs_dir: Path) -> RunFolder:
    """The run folder for a recipe: the existing one of the same recipe, to be resumed, or a new one.

    Two recipes are the same when they differ at most in the method's number of steps, when they save, where they export to, and in how many processes.
    Raises ``SettingsError`` for a recipe that cannot be used.
    """
    config = load_training_config(config_path)
    run = run_of(config, runs_dir)
    _freeze(run, config)
    run.forget_wishes()
    return run


def run_of(config: TrainingConfig, runs_dir: Path) -> RunFolder:
    """The run folder that ``prepare_run`` makes for a recipe of this configuration, untouched."""
    return RunFolder(runs_dir / f"{config.name}-{_digest(config)}")


def new_run(config: TrainingConfig, runs_dir: Path) -> RunFolder:
    """A fresh run folder, also where there is one of the same configuration already. Raises ``StorageError``."""
    name = f"{config.name}-{_digest(config)}"
    run, number = RunFolder(runs_dir / name), 1
    while True:
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            run = RunFolder(runs_dir / f"{name}-{number}")
        except OSError as error:
            raise storage_error(runs_dir, error) from error
        else:
            _freeze(run, config)
            return run


def _freeze(run: RunFolder, config: TrainingConfig) -> None:
    atomic_write(run.path / "config.json", config.model_dump_json(indent=2).encode() + b"\n")


def read_lines(run: RunFolder, offset: int = 0, limit: int = 1 << 20) -> tuple[list[dict[str, Any]], int]:
    """Events after byte ``offset`` of events.jsonl as plain objects, and the offset to go on from.

    At most about ``limit`` bytes are read. A line still being written is left for the next call; one that is no JSON object, as a full
    disk may leave it, is passed over.
    """
    try:
        with run.events.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(limit)
            if len(data) == limit and not data.endswith(b"\n"):
                data += stream.readline(_LONGEST_LINE)
    except FileNotFoundError:
        return [], offset
    complete = data[: data.rfind(b"\n") + 1]
    return list(_objects(complete)), offset + len(complete)


def read_events(run: RunFolder, offset: int = 0) -> tuple[list[Event], int]:
    """All events after byte ``offset`` of events.jsonl, and the offset to go on from; see ``read_lines``."""
    events: list[Event] = []
    while True:
        found, reached = read_lines(run, offset)
        events += [_EVENT.validate_python(line) for line in found]
        if reached == offset:
            return events, offset
        offset = reached


def worker_command(run: RunFolder, python: str, threads: int | None = None, device: str = "auto") -> list[str]:
    """The command line that runs or resumes ``run`` with the interpreter ``python``, in as many processes as it is to have."""
    start = ["-m", "studio.training.worker", os.fspath(run.path), "--device", device]
    if (processes := run.config().processes) > 1:
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", *start]
    return [python, *start, *(["--threads", str(threads)] if threads else [])]


def _objects(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _digest(config: TrainingConfig) -> str:
    data = config.model_dump(mode="json", exclude={"save_minutes", "keep", "export_to", "processes"})
    *parts, steps = config.method.steps_field
    holder = data["method"]
    for part in parts:
        holder = holder[part]
    del holder[steps]
    return blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=4).hexdigest()
