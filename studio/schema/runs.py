"""`RunRecord` and its like: training runs as the page, REST and the command line show them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

RunState = Literal["queued", "running", "paused", "stopped", "interrupted", "failed", "finished"]
RunAction = Literal["stop", "pause", "resume", "save", "sample", "force-stop", "duplicate"]
LIVING: tuple[RunState, ...] = ("running", "paused")
RESUMABLE: tuple[RunState, ...] = ("stopped", "interrupted", "failed")


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSummary(_Fact):
    """What a run's events say at one moment. Steps count within the stage; times are Unix seconds."""

    stage: str = ""
    step: int = 0
    total: int = 0
    per_second: FiniteFloat | None = None
    eta_s: FiniteFloat | None = Field(None, description="Seconds to the end of the stage")
    values: dict[str, FiniteFloat] = Field(
        {}, description="The newest measurements: loss, rate, norm and what a method adds"
    )
    validation: FiniteFloat | None = Field(None, description="The newest validation loss")
    first_validation: FiniteFloat | None = None
    samples: int = Field(0, description="Pictures painted while training")
    starting: bool = Field(False, description="Its process was started and has told of no stage yet")
    paused: bool = False
    note: str = Field("", description="The newest note of the run to its user")
    ending: Literal["", "finished", "stopped", "failed"] = ""
    ended: FiniteFloat | None = None
    message: str = Field("", description="Why it failed")
    model: str = Field("", description="What the finished run made, a path")
    offset: int = Field(0, description="Bytes of events.jsonl that this is the sum of")


class RunRecord(_Fact):
    """One run. `interrupted` means that its process died without saying how: like stopped and failed ones it can be resumed."""

    id: str
    revision: int = Field(
        0, description="Counts its changes since the server started: of two records the higher is newer"
    )
    name: str
    method: str
    model: str = Field("", description="The checkpoint it starts from, where it starts from one")
    state: RunState
    created: float
    position: int | None = Field(None, description="1 is next; null when not waiting")
    pid: int | None = Field(None, description="The process that trains")
    stopping: bool = Field(False, description="It was asked to stop and has not yet")
    force_at: float | None = Field(None, description="Unix time from which it may be stopped by force")
    paused_for_painting: bool = Field(False, description="It pauses until pictures are painted")
    obeys: tuple[str, ...] = Field((), description="What can be wished of it while it runs: stop, pause, save, sample")
    lora: str | None = Field(None, description="Name for a prompt, when it made a LoRA that lies in the LoRA folder")
    trigger: str = ""
    problem: str = Field("", description="Why its folder cannot be read")
    summary: RunSummary = RunSummary()


class RunDetail(_Fact):
    """A run with its frozen configuration; null where that cannot be read."""

    run: RunRecord
    config: dict[str, Any] | None


class RunEvents(_Fact):
    """A stretch of a run's events, as they stand in events.jsonl; ask again with `offset` for what comes after."""

    events: list[dict[str, Any]]
    offset: int


class Curve(_Fact):
    """One measurement over the steps, thinned to at most some hundred points: [last step, mean, lowest, highest]."""

    name: str
    points: list[tuple[int, float, float, float]]


class RunCurves(_Fact):
    """The curves of one stage of a run, with the stages there are; `offset` as in `RunEvents`."""

    stage: str
    stages: list[str]
    curves: list[Curve]
    epoch_steps: float | None = Field(None, description="Steps of one pass over the data, where known")
    offset: int


class RunSample(_Fact):
    """A picture painted while training, after `step` steps; step 0 is the base."""

    step: int
    index: int
    prompt: str
    url: str
    time: float


class RunLog(_Fact):
    """The end of a run's log, and its whole length in bytes."""

    text: str
    size: int


class MemoryEstimate(_Fact):
    """What a run will take in memory, in bytes, by docs/training-methods.md. On a GPU, `training` is what its memory needs; `loading` is the computer's."""

    loading: int = Field(description="The process at its peak while it loads")
    training: int = Field(description="The process while it trains")
    weights: int = Field(description="Of training: weights that are there, learning or not")
    learning: int = Field(description="Of training: what learns, its gradients, the optimizer and the average")
    activations: int = Field(description="Of training: what a backward pass needs of the forward pass")
    learning_numbers: int = Field(description="How many numbers learn")
