"""The reproduce check: paint a picture again from its own text and compare."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from studio.api.common import StudioDep
from studio.api.native.reading import PICTURE_BODY
from studio.schema.jobs import JobRecord

router = APIRouter(tags=["reading"])


class Outcome(BaseModel):
    """How near the new picture comes: differences of 8-bit values, structural similarity (at most 1), causes as sentences.

    Both measures are null where the sizes differ.
    """

    equal: bool
    largest_difference: int | None
    similarity: float | None
    words: str
    causes: list[str]
    infotext: str


class CheckAnswer(BaseModel):
    """The job that paints the picture again, and the outcome once it has."""

    job: JobRecord
    outcome: Outcome | None


@router.post("/reproduce", openapi_extra=PICTURE_BODY)
async def start(studio: StudioDep, request: Request) -> CheckAnswer:
    """Put the check of a picture, sent as the raw body, into the queue. Ask for its outcome with the job's id."""
    job = await run_in_threadpool(studio.start_reproduction, await request.body())
    return CheckAnswer(job=job, outcome=None)


@router.get("/reproduce/{job_id}")
def outcome(studio: StudioDep, job_id: int) -> CheckAnswer:
    """A check and its outcome, which is null while the job waits or runs, and when it failed."""
    found = studio.reproduction(job_id)
    job = studio.queue.job(job_id)
    if found is None:
        return CheckAnswer(job=job, outcome=None)
    shown = Outcome(
        equal=found.equal,
        largest_difference=found.largest,
        similarity=found.similarity,
        words=found.words,
        causes=list(found.causes),
        infotext=found.infotext,
    )
    return CheckAnswer(job=job, outcome=shown)
