"""What can be done with a step of a job that was painted: decode it in full, or go on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.errors import NotFound
from studio.jobs.latents import painter_of
from studio.plots import expanded

if TYPE_CHECKING:
    from studio.app import Studio


def decode_step(studio: Studio, job_id: int, batch: int, step: int, index: int) -> bytes:
    """The predicted picture after `step` (from 1) of picture `index` of `batch`, decoded in full: a PNG without text. A refined
    picture is decoded by the VAE that its finished picture is decoded by, before the switch of a running job by that of the
    first checkpoint. Where the second pass has a checkpoint of its own, each step is decoded by that which painted it: the
    latents of one may mean nothing to the other. A VAE of the second pass decodes the steps behind the first's.

    Raises `NotFound` when its latents are not kept, `UnknownModel` when the job's checkpoint or VAE is gone, and what
    `Engine.decode` raises.
    """
    request, latents = studio.queue.job(job_id).request, studio.queue.step_latents(job_id, batch, step)
    if request.plot:
        request = expanded(request, lambda: 0)[1][batch]
    model, vae = studio.library.checkpoint(request.model), studio.library.vae(request.vae)
    names = [request.refiner.checkpoint] if request.refiner else []
    painter = studio.queue.last_painter(job_id, batch)
    if request.hires and request.hires.checkpoint:
        names.append(request.hires.checkpoint)
        painter = painter_of(latents)
    if request.hires and request.hires.vae and step > request.steps:
        vae = studio.library.vae(request.hires.vae)
    others = (studio.library.checkpoint(name) for name in names)
    model = next((other for other in others if other.path == painter), model)
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
    resolved = studio.resolve(job.request, job.options)
    if not 0 <= index < resolved.picture_count:
        raise NotFound(f"Job {job_id} has no picture {index}.")
    return write_infotext(*resolved.picture(index), studio.version)
