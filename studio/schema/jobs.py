"""`JobRecord` and `ImageRecord`: rows of the queue and of the picture index, as the rest of the program sees them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.schema.request import GenerationRequest, RunOptions

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
ACTIVE: tuple[JobStatus, ...] = ("queued", "running")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecord(_Record):
    """One finished picture. `path` is None when it could not be (or was not to be) written; `url` always serves it."""

    id: int
    job_id: int
    index: int
    path: str | None
    url: str
    seed: int
    width: int
    height: int
    infotext: str
    model: str
    created: float


class JobRecord(_Record):
    """One job. Times are seconds since the epoch; order is by `id`, never by clock.

    `interrupted` means it was stopped with some pictures done, or the server died while it ran: see `error`.
    """

    id: int
    kind: Literal["generate"] = "generate"
    status: JobStatus
    request: GenerationRequest
    options: RunOptions
    source: str = Field("", description="Which door it came through: ui, api, sdapi, cli, reproduce")
    created: float
    started: float | None = None
    finished: float | None = None
    position: int | None = Field(None, description="1 is next; None when not waiting")
    progress: float = Field(0.0, ge=0, le=1)
    step: int = 0
    steps: int = 0
    error: dict[str, Any] | None = None
    images: tuple[ImageRecord, ...] = ()
    notes: tuple[str, ...] = Field(
        (), description="Sentences about what is not done as written; only in the answer to asking for the job"
    )
    grid: str | None = Field(None, description="Where the grid of the pictures was written; None when there is none")
