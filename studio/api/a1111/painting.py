"""What txt2img and img2img share: enqueue, wait for the end without holding a thread, answer with the pictures."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from studio.api.a1111.bodies import PaintBody
from studio.api.a1111.names import in_their_words
from studio.api.a1111.translate import Context, Order
from studio.api.changes import change_settings
from studio.app import Studio
from studio.encoders import sorted_modules
from studio.errors import EngineError, NotFound, StudioError, from_dict
from studio.naming.facts import timestamp
from studio.plotting import job_sheet
from studio.schema.jobs import ACTIVE, ImageRecord, JobRecord
from studio.schema.parts import MAX_SEED
from studio.schema.request import GenerationRequest

LOOK_SECONDS = 5.0
"""How often a waiting call looks at its job although no event came."""


class ImagesAnswer(BaseModel):
    """`images` are base64 files in the format they were saved in, their infotext inside, first the grid when one was saved, or the sheet of a plot; `info` is JSON text."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


def context_of(studio: Studio) -> Context:
    """What this server understands bodies with."""
    return Context(
        studio.default_request(),
        lambda text: studio.read_infotext(text).request,
        studio.settings.preview_every,
        partial(sorted_modules, library=studio.library),
        studio.settings.face_restoration_model,
    )


async def painted(studio: Studio, body: PaintBody, understand: Callable[[], Order]) -> ImagesAnswer:
    """Paint what `understand` makes of `body`, and answer when the job has ended. Errors are in A1111's words."""
    order, job = await run_in_threadpool(_submit, studio, understand)
    ended = await _ended(studio, job.id)
    if ended.status == "failed":
        raise in_their_words(from_dict(ended.error or {}))
    if ended.status in ACTIVE:
        raise EngineError(f"The server is stopping; job {ended.id} waits for its next start.")
    return await run_in_threadpool(_answer, studio, body, order, ended, job.notes)


def _submit(studio: Studio, understand: Callable[[], Order]) -> tuple[Order, JobRecord]:
    order = understand()
    try:
        job = studio.submit(order.request, order.options, source="sdapi")
    except StudioError as error:
        raise in_their_words(error) from None
    if order.persistent:
        change_settings(studio, order.persistent)
    return order, job


async def _ended(studio: Studio, job_id: int) -> JobRecord:
    """The record of the job when it has ended, or when the server stops."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    with studio.queue.events.subscribe(wake=wake) as events:
        while True:
            news.clear()
            closed = events.closed
            record = await run_in_threadpool(studio.queue.job, job_id)
            if closed or record.status not in ACTIVE:
                return record
            while (event := events.get(0)) is not None:
                if event.job_id == job_id and event.event.type in ("finished", "failed", "cancelled"):
                    news.set()
            try:
                await asyncio.wait_for(news.wait(), LOOK_SECONDS)
            except asyncio.TimeoutError:
                continue


def _answer(studio: Studio, body: PaintBody, order: Order, job: JobRecord, notes: Sequence[str]) -> ImagesAnswer:
    images: list[str] = []
    sheet = job_sheet(studio, job) if job.grid or (job.request.plot and job.images) else None
    if order.sheet_alone and sheet:
        job = job.model_copy(update={"images": ()})
    if body.send_images in (True, None):
        sent = [sheet] if sheet else []
        images = [base64.b64encode(data).decode() for data in (*sent, *(_png(studio, record) for record in job.images))]
    parameters = body.model_dump(include=set(type(body).model_fields))
    info = _info(studio, order, job, sheet, notes)
    return ImagesAnswer(images=images, parameters=parameters, info=json.dumps(info, ensure_ascii=False))


def _png(studio: Studio, record: ImageRecord) -> bytes:
    try:
        return studio.queue.image_bytes(record.id)
    except NotFound as error:
        raise EngineError(f"{error.message} Ask for fewer pictures at once, or for save_images.") from None


def _info(studio: Studio, order: Order, job: JobRecord, sheet: bytes | None, notes: Sequence[str]) -> dict[str, Any]:
    """A1111's description of what was made, under its keys; `warnings` is ours and there only when something was ignored.

    `notes` are those that the job was taken with. The grid or `sheet` stands before the pictures, with its own text.
    """
    request, images = job.request, job.images
    told = [_own(studio, request, image) for image in images]
    texts = [image.infotext for image in images]
    first = [(studio.read_picture(sheet).infotext or "") if request.plot else texts[0]] if sheet else []
    model = studio.library.checkpoint(request.model)
    vae = studio.library.vae(request.vae)
    variation, resize = request.variation, request.seed_resize
    painted_anew = request.source or request.hires
    info: dict[str, Any] = {
        "prompt": request.prompt,
        "all_prompts": [own.prompt for own in told],
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [own.negative_prompt for own in told],
        "seed": request.seed,
        "all_seeds": [image.seed for image in images],
        "subseed": variation.seed if variation else -1,
        "all_subseeds": [own.subseed for own in told],
        "subseed_strength": variation.strength if variation else 0,
        "width": request.width,
        "height": request.height,
        "sampler_name": request.sampler,
        "cfg_scale": request.cfg_scale,
        "steps": request.steps,
        "batch_size": request.batch_size,
        "restore_faces": bool(request.face_restoration),
        "face_restoration_model": request.face_restoration or None,
        "sd_model_name": model.name,
        "sd_model_hash": model.short_hash,
        "sd_vae_name": vae.name if vae else None,
        "sd_vae_hash": vae.short_hash if vae else None,
        "seed_resize_from_w": resize.width if resize else -1,
        "seed_resize_from_h": resize.height if resize else -1,
        "denoising_strength": painted_anew.denoising_strength if painted_anew else None,
        "extra_generation_params": {},
        "index_of_first_image": len(first),
        "infotexts": [*first, *texts],
        "styles": list(order.request.styles),
        "job_timestamp": timestamp(job.started or job.created),
        "clip_skip": request.clip_skip,
        "is_using_inpainting_conditioning": model.inpaint,
        "version": studio.version,
    }
    warnings = [*order.warnings, *notes]
    return {**info, "warnings": warnings} if warnings else info


@dataclass(frozen=True)
class _Own:
    """What differs from picture to picture. The variation seed is -1 without a variation."""

    prompt: str
    negative_prompt: str
    subseed: int


def _own(studio: Studio, request: GenerationRequest, image: ImageRecord) -> _Own:
    if request.plot:  # the values of an axis stand in the texts of the pictures
        parsed = studio.read_infotext(image.infotext)
        return _Own(parsed.prompt, parsed.negative_prompt, int(parsed.pairs.get("Variation seed", -1)))
    subseed = (request.variation.seed + image.index) % (MAX_SEED + 1) if request.variation else -1
    return _Own(request.prompt, request.negative_prompt, subseed)
