"""Progress, interrupt, skip, png-info and the refresh calls."""

from __future__ import annotations

import base64
import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from studio.api.a1111.pictures import decoded
from studio.api.common import StudioDep
from studio.app import Studio
from studio.errors import NotFound
from studio.schema.events import Progress

router = APIRouter()


class ProgressState(BaseModel):
    """A1111's `state`."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressAnswer(BaseModel):
    """How far the running job is. Idle is `progress` 0 and `job_count` 0."""

    progress: float = 0.0
    eta_relative: float = 0.0
    state: ProgressState = ProgressState()
    current_image: str | None = None
    textinfo: str | None = None
    current_task: str | None = None


class PngInfoBody(BaseModel):
    """A picture, base64 or a data URI."""

    image: str


class PngInfoAnswer(BaseModel):
    """The infotext, other text entries, and the infotext's parameters."""

    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


@router.get("/progress")
def progress(studio: StudioDep, skip_current_image: bool = False) -> ProgressAnswer:
    """How far the running job is, with its newest preview."""
    running = studio.queue.running()
    if running is None:
        waiting = studio.queue.waiting
        return ProgressAnswer(state=ProgressState(job="txt2img", job_count=waiting) if waiting else ProgressState())
    job, last, done = running.job, running.last, running.job.progress
    state = ProgressState(
        skipped=running.asked == "skip",
        interrupted=running.asked == "interrupt",
        stopping_generation=running.asked == "interrupt",
        job="img2img" if job.request.source else "txt2img",
        job_count=last.batches if last else job.request.batch_count,
        job_timestamp=time.strftime("%Y%m%d%H%M%S", time.localtime(job.started or job.created)),
        job_no=last.batch if last else 0,
        sampling_step=last.step if last else 0,
        sampling_steps=last.total if last else job.request.steps,
    )
    return ProgressAnswer(
        progress=done,
        eta_relative=running.seconds * (1 - done) / done if done else 0.0,
        state=state,
        current_image=None if skip_current_image else _preview(studio, job.id, running.shown),
        textinfo=running.message or None,
        current_task=job.options.task_id or f"task({job.id})",
    )


@router.post("/interrupt")
def interrupt(studio: StudioDep) -> dict[str, Any]:
    """End the running job within one step."""
    studio.queue.interrupt()
    return {}


@router.post("/skip")
def skip(studio: StudioDep) -> dict[str, Any]:
    """Let the running job go on with its next batch."""
    studio.queue.skip()
    return {}


@router.post("/png-info")
def png_info(studio: StudioDep, body: PngInfoBody) -> PngInfoAnswer:
    """Read the generation text of a picture."""
    info = studio.read_picture(decoded(body.image, "image"))
    if info.infotext is None:
        return PngInfoAnswer(info="", items=dict(info.items), parameters={})
    parsed = studio.read_infotext(info.infotext)
    prompts = {"Prompt": parsed.prompt, "Negative prompt": parsed.negative_prompt}
    return PngInfoAnswer(info=info.infotext, items=dict(info.items), parameters={**prompts, **parsed.pairs})


@router.post("/refresh-checkpoints")
@router.post("/refresh-loras")
@router.post("/refresh-embeddings")
@router.post("/refresh-vae")
def refresh(studio: StudioDep) -> dict[str, Any]:
    """Look for new, changed and removed model files."""
    studio.library.refresh()
    studio.library.start_hashing()
    return {}


def _preview(studio: Studio, job_id: int, shown: Progress | None) -> str | None:
    if shown is None:
        return None
    try:
        return base64.b64encode(studio.queue.preview_bytes(job_id, shown.batch, shown.step, 0)).decode()
    except NotFound:
        return None
