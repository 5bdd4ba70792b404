"""What can be done with a step of a job that was painted: decode it in full, or go on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.errors import NotFound

if TYPE_CHECKING:
    from studio.app import Studio


def decode_step(studio: Studio, job_id: int, batch: int, step: int, index: int) -> bytes:
    """The predicted picture after `step` (from 1) of picture `index` of `batch`, decoded in full: a PNG without text. A refined
    picture is decoded by the VAE that its finished picture is decoded by, before the switch of a running job by that of the
    first checkpoint.

    Raises `NotFound` when its latents are not kept, `UnknownModel` when the job's checkpoint or VAE is gone, and what
    `Engine.decode` raises.
    """
    request, latents = studio.queue.job(job_id).request, studio.queue.step_latents(job_id, batch, step)
    model, vae = studio.library.checkpoint(request.model), studio.library.vae(request.vae)
    if request.refiner:
        refiner = studio.library.checkpoint(request.refiner.checkpoint)
        model = refiner if refiner.path == studio.queue.last_painter(job_id, batch) else model
    return studio.engine.decode(model, vae, latents, index)


def origin_text(studio: Studio, job_id: int, index: int) -> str:
    """The text that a branch of picture `index` of a job names as its origin; also of one that was never finished.

    Raises `NotFound`, and what `resolve` raises where the text has to be made anew.
    """
    from studio.infotext import write_infotext

    job = studio.queue.job(job_id)
    text = next((image.infotext for image in job.images if image.index == index), None)
    if text is not None:
        return text
    if not 0 <= index < job.request.picture_count:
        raise NotFound(f"Job {job_id} has no picture {index}.")
    return write_infotext(studio.resolve(job.request, job.options), index, studio.version)
