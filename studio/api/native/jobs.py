"""Asking for pictures, and the queue."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from studio.api.common import StudioDep
from studio.app import Studio
from studio.errors import NotAllowed
from studio.schema.events import Progress
from studio.schema.jobs import JobRecord
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.steps import origin_text

router = APIRouter(tags=["jobs"])

Limit = Annotated[int, Query(ge=1, le=1000)]


class GenerateBody(GenerationRequest):
    """A request, as far as it is given; the rest is what a fresh form would show, or for a branch what its origin was.

    `options` never change the pixels.
    """

    options: RunOptions | None = Field(None, description="Previews and saving; empty: as the settings say")


def whole_request(studio: Studio, body: GenerationRequest, more: set[str]) -> GenerationRequest:
    """What `body` gives, without the fields `more` that its route adds, over what a fresh form would show."""
    given = body.model_dump(include=body.model_fields_set - more)
    model = studio.library.checkpoint(body.model) if body.model else None
    defaults = studio.default_request(model, body.branch).model_dump()
    return make_request({**defaults, **given})


@router.post("/generate")
def generate(studio: StudioDep, body: GenerateBody) -> JobRecord:
    """Put a job into the queue. Answers at once; follow it with `events` or `jobs/{id}`."""
    if body.options is not None and body.options.output_dir is not None:
        raise NotAllowed("Where pictures are written cannot be chosen over HTTP.", field="options.output_dir")
    return studio.submit(whole_request(studio, body, {"options"}), body.options, source="api")


@router.get("/jobs")
def jobs(studio: StudioDep, limit: Limit = 50, active: bool = False, before: int | None = None) -> list[JobRecord]:
    """Jobs, newest first, older than id `before`; `active`: only running and waiting ones, in the order they run."""
    return studio.queue.jobs(limit=limit, active=active, before=before)


@router.get("/jobs/{job_id}")
def job(studio: StudioDep, job_id: int) -> JobRecord:
    """One job with its pictures."""
    return studio.queue.job(job_id)


@router.get("/jobs/{job_id}/progress")
def progress(studio: StudioDep, job_id: int) -> list[Progress]:
    """The steps of a job so far, with the URLs of their previews."""
    studio.queue.job(job_id)
    return studio.queue.progress_events(job_id)


class OriginAnswer(BaseModel):
    """Generation text, as `branch.origin` takes it, and the request that it stands for."""

    text: str
    request: dict[str, Any]


@router.get("/jobs/{job_id}/origin/{index}")
def origin(studio: StudioDep, job_id: int, index: int) -> OriginAnswer:
    """What a branch of this picture of a job names as its origin, also when the picture was never finished."""
    text = origin_text(studio, job_id, index)
    return OriginAnswer(text=text, request=studio.read_infotext(text).request)


@router.post("/jobs/{job_id}/cancel")
def cancel(studio: StudioDep, job_id: int) -> JobRecord:
    """Take a waiting job out of the queue, or interrupt it when it runs."""
    return studio.queue.cancel(job_id)


@router.post("/jobs/{job_id}/skip")
def skip_batch(studio: StudioDep, job_id: int) -> JobRecord:
    """Let this job go on with its next batch, if it runs."""
    studio.queue.skip(job_id)
    return studio.queue.job(job_id)


@router.post("/jobs/{job_id}/retry")
def retry(studio: StudioDep, job_id: int) -> JobRecord:
    """Ask for the same again, as a new job."""
    return studio.queue.retry(job_id)


@router.post("/interrupt")
def interrupt(studio: StudioDep) -> dict[str, bool]:
    """End the running job within one step; finished pictures stay."""
    studio.queue.interrupt()
    return {"ok": True}


@router.post("/skip")
def skip(studio: StudioDep) -> dict[str, bool]:
    """Let the running job go on with its next batch."""
    studio.queue.skip()
    return {"ok": True}
