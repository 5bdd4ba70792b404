"""Plots (X/Y/Z): what an axis can choose from, and what a plot comes to, before it is asked for."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from studio.api.common import StudioDep
from studio.api.native.jobs import whole_request
from studio.plotting import plot_choices, plot_size
from studio.schema.request import GenerationRequest

router = APIRouter(tags=["jobs"])


class PlotSizeBody(GenerationRequest):
    """A request, as far as it is given, as for `generate`."""


class PlotSizeAnswer(BaseModel):
    """What a plot comes to, or why it cannot be."""

    axes: tuple[int, int, int] = Field(
        description="Values of X, Y and Z: 1 where an axis has nothing, 0 without a plot"
    )
    pictures: int = Field(description="All together")
    problem: str = Field(description="What is wrong with the request; empty: nothing")
    field: str | None = Field(description="The field that it is about")


@router.get("/plot/choices")
def choices(studio: StudioDep) -> dict[str, list[str]]:
    """All values of the axes whose values are names, by the type of the axis."""
    return plot_choices(studio)


@router.post("/plot/size")
def size(studio: StudioDep, body: PlotSizeBody) -> PlotSizeAnswer:
    """How many pictures the plot of a request will be, counted as `generate` does it. What that would refuse is a `problem` here."""
    counted = plot_size(studio, whole_request(studio, body, set()))
    return PlotSizeAnswer(axes=counted.axes, pictures=counted.pictures, problem=counted.problem, field=counted.field)
