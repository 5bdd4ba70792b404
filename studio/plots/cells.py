"""The requests of a plot's cells.

X  CFG Scale  5-9 (+2)             5       7       9
Y  Sampler    Euler, Heun    Euler cell    cell    cell
                             Heun  cell    cell    cell
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from studio.errors import InvalidRequest
from studio.plots.axes import Values, axis_values
from studio.schema.plot import MAX_CELLS, Plot
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import PlotPlan, ResolvedRequest

AXES = ("x", "y", "z")
SEEDS = ("Seed", "Var. seed")
WORDED = {"prompt", "negative_prompt", "styles", "hires"}
"""Fields that styles and wildcards are written into: all of them, or none."""
NOTHING: Values = [("", lambda request: request)]


def expanded(
    request: GenerationRequest, draw_seed: Callable[[], int]
) -> tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], list[GenerationRequest]]:
    """The labels of the three axes of a request with a plot, and the requests of its pictures in reading order: along X, then Y, then Z.

    A seed of -1 is drawn here, once for all of them, and one among the values of an axis once for all pictures that it belongs to;
    unless the plot wants another seed for each picture.

    Raises `InvalidRequest` for values that are none or that the request cannot have, for batches, for two axes of one type and for more
    than `MAX_CELLS` pictures.
    """
    plot = request.plot
    assert plot is not None, "only a request with a plot has cells"
    if request.picture_count > 1:
        raise InvalidRequest(
            f"A plot has one picture in each cell, not {request.picture_count}: set batch count and batch size to 1.",
            field="batch_count" if request.batch_count > 1 else "batch_size",
        )
    x, y, z = _axes(plot, draw_seed)
    base, found = request.model_copy(update={"plot": None}), []
    if not plot.random_seeds:
        base = _with_seeds(base, draw_seed, draw_seed)
    for on_z, on_y, on_x in itertools.product(z, y, x):
        own = base
        for axis, (label, change) in (("z", on_z), ("y", on_y), ("x", on_x)):
            try:
                own = change(own)
            except ValueError as error:
                raise InvalidRequest(
                    f"{plot_type(plot, axis)} {label!r}: {error}.", field=f"plot.{axis}_values"
                ) from None
        found.append(_whole(own))
    return (_labels(x), _labels(y), _labels(z)), found


def fixed_plot(
    request: GenerationRequest, plan: PlotPlan, fixed: Callable[[GenerationRequest, ResolvedRequest], GenerationRequest]
) -> GenerationRequest:
    """`request` with what its pictures have in common written in, so that running it again gives the same ones; `fixed` does so with one of them.

    These are answers to fields that no axis changes (the checkpoint, prompts with their styles and what was drawn in them) and the seeds: the
    common one, and the values of an axis of seeds. Where each picture has a seed of its own there is nothing common, and it stays as it is.
    """
    asked = expanded(request, lambda: 0)[1]
    changes = _common(request, asked, [fixed(one, cell) for one, cell in zip(asked, plan.cells, strict=True)])
    if not plan.asked.random_seeds:
        mixed = [cell.variation.seeds[0] for cell in plan.cells if cell.variation]
        whole = _with_seeds(request, lambda: plan.cells[0].seeds[0], lambda: mixed[0] if mixed else -1)
        changes |= {"seed": whole.seed, "variation": whole.variation}
    values = {f"{axis}_values": drawn for axis in AXES if (drawn := fixed_values(plan, axis))}
    return request.model_copy(update={**changes, "plot": plan.asked.model_copy(update=values)})


def _common(
    request: GenerationRequest, asked: Sequence[GenerationRequest], fixed: Sequence[GenerationRequest]
) -> dict[str, Any]:
    """Answers that all of `fixed` share, to fields that all of `asked` have from `request`."""

    def value(name: str) -> Any:
        return getattr(fixed[0], name)

    found = {
        name: value(name)
        for name in GenerationRequest.model_fields.keys() - {"plot", "seed", "variation"}
        if all(getattr(one, name) == getattr(request, name) for one in asked)
        and all(getattr(one, name) == value(name) for one in fixed)
    }
    if found.keys() >= WORDED:
        return found
    return {name: answer for name, answer in found.items() if name not in WORDED}


def _with_seeds(request: GenerationRequest, seed: Callable[[], int], mixed: Callable[[], int]) -> GenerationRequest:
    """`request` with seeds of -1, its own and that of its variation, replaced by these."""
    part = request.variation
    if part and part.seed < 0:
        part = part.model_copy(update={"seed": mixed()})
    return request.model_copy(update={"seed": seed() if request.seed < 0 else request.seed, "variation": part})


def fixed_values(plan: PlotPlan, axis: str) -> str | None:
    """The values of an axis of seeds as they were drawn, which A1111 calls fixed; None for any other, and where each picture has its own."""
    if plot_type(plan.asked, axis) not in SEEDS or plan.asked.random_seeds:
        return None
    return ", ".join(plan.labels[AXES.index(axis)])


def plot_type(plot: Plot, axis: str) -> str:
    """What an axis, "x", "y" or "z", changes."""
    kind: str = getattr(plot, f"{axis}_type")
    return kind


def _kinds(plot: Plot) -> list[str]:
    return [plot_type(plot, axis) for axis in AXES]


def _labels(axis: Values) -> tuple[str, ...]:
    return tuple(label for label, _ in axis)


def _axes(plot: Plot, draw_seed: Callable[[], int]) -> list[Values]:
    kinds = _kinds(plot)
    twice = next((kind for kind in kinds if kind != "Nothing" and kinds.count(kind) > 1), None)
    if twice:
        raise InvalidRequest(f"Two axes change {twice}: each may change something of its own.", field="plot.y_type")
    axes, count = [], 1
    for axis, kind in zip(AXES, kinds, strict=True):
        text: str = getattr(plot, f"{axis}_values")
        try:
            values = NOTHING if kind == "Nothing" else axis_values(kind, text)
            drawn = kind in SEEDS and not plot.random_seeds
            axes.append(
                [pair for label, _ in values for pair in axis_values(kind, _seed(label, draw_seed))]
                if drawn
                else values
            )
        except ValueError as error:
            shown = text if len(text) <= 80 else f"{text[:79]}…"
            raise InvalidRequest(
                f"plot.{axis}_values = {shown!r} is not possible for {kind}: {error}.", field=f"plot.{axis}_values"
            ) from None
        count *= len(axes[-1])
    if count > MAX_CELLS:
        raise InvalidRequest(
            f"The plot would have {count} pictures; at most {MAX_CELLS} are possible.", field="plot.x_values"
        )
    return axes


def _seed(label: str, draw_seed: Callable[[], int]) -> str:
    return str(draw_seed()) if label == "-1" else label


def _whole(request: GenerationRequest) -> GenerationRequest:
    """The request with everything an axis put into it checked."""
    try:
        return make_request(request.model_dump())
    except InvalidRequest as error:
        raise InvalidRequest(
            f"The plot asks for a picture that cannot be: {error.message}", field="plot", choices=error.choices
        ) from None
