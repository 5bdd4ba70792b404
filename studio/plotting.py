"""What a plot (X/Y/Z) can choose from, how many pictures it will be, and its sheet afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from studio.errors import NotFound, StudioError
from studio.samplers import SAMPLERS, SCHEDULES
from studio.schema.jobs import JobRecord
from studio.schema.request import Fp8Weight, GenerationRequest, RngSource
from studio.upscalers import UPSCALERS

if TYPE_CHECKING:
    from studio.app import Studio


@dataclass(frozen=True)
class PlotSize:
    """How many values each axis has, X first, 1 where it has none, or what is wrong: `problem`, and the `field` that it is about."""

    axes: tuple[int, int, int] = (0, 0, 0)
    problem: str = ""
    field: str | None = None

    @property
    def pictures(self) -> int:
        """Pictures of the whole plot."""
        across, down, deep = self.axes
        return across * down * deep


def plot_choices(studio: Studio) -> dict[str, list[str]]:
    """All values of the axes whose values are names, by the type of the axis; an axis without any has an empty list."""
    models = [model.name for model in studio.library.checkpoints() if not model.problem]
    samplers, switches = [sampler.name for sampler in SAMPLERS], ["False", "True"]
    return {
        "Sampler": samplers,
        "Hires sampler": samplers,
        "Schedule type": [schedule.label for schedule in SCHEDULES],
        "Checkpoint name": models,
        "Refiner checkpoint": ["None", *models],
        "VAE": ["Automatic", *(vae.name for vae in studio.library.vaes() if not vae.problem)],
        "Hires upscaler": [
            *UPSCALERS.names(),
            *(model.name for model in studio.library.upscalers() if not model.problem),
        ],
        "Styles": _styles(studio),
        "RNG source": list(get_args(RngSource)),
        "FP8 mode": list(get_args(Fp8Weight)),
        "Always discard next-to-last sigma": switches,
        "SGM noise multiplier": switches,
    }


def _styles(studio: Studio) -> list[str]:
    """Their names; none while a file of them is damaged."""
    try:
        return [style.name for style in studio.library.styles.styles()]
    except StudioError:
        return []


def plot_size(studio: Studio, request: GenerationRequest) -> PlotSize:
    """What the plot of `request` will be: what `Studio.submit` would make of it, or say of it. Without a plot nothing."""
    if request.plot is None:
        return PlotSize()
    try:
        plan = studio.resolve(request).plot
    except StudioError as error:
        return PlotSize(problem=error.message, field=error.field)
    assert plan is not None, "a request with a plot resolves to one"
    across, down, deep = (len(labels) for labels in plan.labels)
    return PlotSize((across, down, deep))


def job_sheet(studio: Studio, job: JobRecord) -> bytes:
    """The grid of a job as it was saved. The sheet of a plot that was not is laid out from the pictures that are there.

    Raises `NotFound` where there is neither, and `InvalidRequest` for a sheet of more than 200 megapixels.
    """
    try:
        return studio.queue.grid_bytes(job.id)
    except NotFound:
        if job.request.plot is None or not job.images:
            raise
    from studio.infotext import encode_image, with_plot
    from studio.jobs.sheets import draw_sheet

    plan, settings = studio.resolve(job.request, job.options).plot, studio.settings
    assert plan is not None, "a request with a plot resolves to one"
    images = {image.index: image for image in job.images}
    sheet = draw_sheet(
        {index: (image.width, image.height) for index, image in images.items()},
        lambda index: studio.queue.image_bytes(images[index].id),
        plan,
    )
    text = with_plot(job.images[0].infotext, plan)
    return encode_image(sheet, text, settings.grid_format, settings.jpeg_quality).data
