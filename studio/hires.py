"""What a second pass (hires. fix) comes to: its size, its sampler, and how a request names both in one way only.

The sizes are AUTOMATIC1111's: by a factor both sides grow; by one side the other follows; by two sides the picture covers the
size asked for and what is over is cut off evenly. All are rounded down to multiples of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from studio.errors import InvalidRequest, StudioError, UnknownName
from studio.samplers.planning import img2img_steps
from studio.samplers.table import AUTOMATIC, SamplerSpec, ScheduleSpec, find_sampler, find_schedule, resolve_schedule
from studio.schema.models import ModelInfo
from studio.schema.request import LARGEST_SIDE, SMALLEST_SIDE, GenerationRequest, HiresPass
from studio.schema.resolved import HiresPlan, RefinerPlan, ResolvedRequest
from studio.upscalers import UPSCALERS
from studio.wording import TEMPLATES, ModelLookup, find_loras, model_calls, prompt_plans, wordings

PIXEL_STEP = 8
MOST_STEPS = 1000
"""Steps that a schedule may have of which a second pass runs the end: the noise levels that checkpoints are trained with."""


@dataclass(frozen=True)
class HiresSize:
    """`final` is cut out of `covering`, both (width, height) in pixels; `resize` is the size asked for, None by a factor."""

    resize: tuple[int, int] | None
    covering: tuple[int, int]
    final: tuple[int, int]


def hires_size(part: HiresPass, width: int, height: int) -> HiresSize:
    """The size after a first pass of `width` x `height`. Raises `InvalidRequest` for one that is too large or too small."""
    resize = _down(part.width), _down(part.height)
    if resize == (0, 0):
        covering = final = _down(int(width * part.scale)), _down(int(height * part.scale))
        asked, field = None, "hires.scale"
    else:
        asked, field = resize, "hires.width" if resize[0] else "hires.height"
        across, down = resize
        by_width = not down or (across > 0 and width * down <= across * height)
        covering = (across, _down(across * height // width)) if by_width else (_down(down * width // height), down)
        final = (across or covering[0], down or covering[1])
    if max(covering) > LARGEST_SIDE or min(final) < SMALLEST_SIDE:
        before = "" if covering == final else f" ({_shown(covering)} before it is cut)"
        raise InvalidRequest(
            f"The second pass would make {_shown(final)} pixels of {width}x{height}{before}; its sides may have "
            f"{SMALLEST_SIDE} to {LARGEST_SIDE}.",
            field=field,
        )
    return HiresSize(asked, covering, final)


def hires_plan(
    request: GenerationRequest,
    worded: Mapping[str, str],
    model: ModelInfo,
    library: ModelLookup,
    seed: int,
    refiner: Callable[[int], RefinerPlan | None],
) -> HiresPlan | None:
    """The second pass of `request`; None where it would neither enlarge nor paint.

    `worded` are the prompts of the first pass, drawn by `seed`; `refiner` makes the plan of the refiner from the model calls of a pass.
    Raises as `studio.resolve.resolve` does, naming the part's field.
    """
    part = request.hires
    width, height = request.width // PIXEL_STEP * PIXEL_STEP, request.height // PIXEL_STEP * PIXEL_STEP
    size = hires_size(part, width, height) if part else None
    if part is None or size is None or (size.final == (width, height) and part.denoising_strength == 0):
        return None
    first = find_sampler(request.sampler)
    sampler, schedule = _sampling(part, first, find_schedule(request.schedule))
    steps = part.steps or request.steps
    _refuse_endless(part, steps)
    before, calls = model_calls(first, request.steps), model_calls(sampler, steps)
    finishing = refiner(calls)
    own = {name: text for name in TEMPLATES if (text := getattr(part, name)).strip()}
    try:
        drawn = wordings(request.model_copy(update=own), library, seed)[0]
        second = {name: (drawn[name].strip() if name in own else "") or text for name, text in worded.items()}
        positive, negative = prompt_plans(second, calls, request, before)
        loras = find_loras(second["prompt"], model, library)
    except StudioError as error:
        error.field = f"hires.{error.field}" if error.field in own else error.field
        raise
    return HiresPlan(
        scale=None if size.resize else part.scale,
        resize=size.resize,
        width=size.final[0],
        height=size.final[1],
        covering=size.covering,
        upscaler=UPSCALERS.get(part.upscaler, field="hires.upscaler").name,
        steps=steps,
        steps_given=part.steps > 0,
        denoising_strength=part.denoising_strength,
        sampler=sampler.name,
        schedule=schedule.label,
        cfg_scale=part.cfg_scale or request.cfg_scale,
        positive=positive,
        negative=negative,
        loras=loras,
        refiner=None if part.refiner == "first pass" else finishing,
        refiner_passes=part.refiner if finishing else "second pass",
        token_merging_ratio=part.token_merging_ratio or request.token_merging_ratio,
    )


def fixed_hires(part: HiresPass | None, resolved: ResolvedRequest, schedule: str) -> HiresPass | None:
    """`part` with its answers written in, as `studio.resolve.fixed` does; `schedule` is what the first pass then asks for.

    What is as in the first pass is left at its default, so that equal pictures come of equal requests.
    """
    plan = resolved.hires
    if part is None or plan is None:
        return None
    return HiresPass(
        **({"scale": plan.scale} if plan.scale is not None else {}),
        width=plan.resize[0] if plan.resize else 0,
        height=plan.resize[1] if plan.resize else 0,
        upscaler=plan.upscaler,
        steps=plan.steps if plan.steps_given else 0,
        denoising_strength=plan.denoising_strength,
        sampler="" if plan.sampler == resolved.sampler else plan.sampler,
        schedule=_named_schedule(plan, schedule),
        cfg_scale=0.0 if plan.cfg_scale == resolved.cfg_scale else plan.cfg_scale,
        prompt="" if plan.positive.text == resolved.positive.text else plan.positive.text,
        negative_prompt="" if plan.negative.text == resolved.negative.text else plan.negative.text,
        refiner=plan.refiner_passes,
        token_merging_ratio=0.0
        if plan.token_merging_ratio == resolved.token_merging_ratio
        else plan.token_merging_ratio,
    )


def _sampling(part: HiresPass, sampler: SamplerSpec, schedule: ScheduleSpec) -> tuple[SamplerSpec, ScheduleSpec]:
    """Sampler and running schedule of the second pass, after a first one that was asked for with `sampler` and `schedule`.

    Raises `UnknownName` naming the part's field.
    """
    try:
        second = find_sampler(part.sampler) if part.sampler.strip() else sampler
        asked = find_schedule(part.schedule) if part.schedule.strip() else schedule
    except UnknownName as error:
        error.field = f"hires.{error.field}"
        raise
    return second, resolve_schedule(second, asked)


def _refuse_endless(part: HiresPass, steps: int) -> None:
    """Raises `InvalidRequest` for a strength so small that the schedule behind `steps` steps of it has no levels left to tell apart."""
    total, _ = img2img_steps(steps, part.denoising_strength, exact_steps=True)
    if total > MOST_STEPS:
        raise InvalidRequest(
            f"hires.denoising_strength = {part.denoising_strength:g} is too small for {steps} steps: they would be the last of "
            f"{total:,}, and {MOST_STEPS:,} are possible. 0 only enlarges.",
            field="hires.denoising_strength",
        )


def _named_schedule(plan: HiresPlan, first: str) -> str:
    """The schedule of `plan` as a request says it after a first pass that asks for `first`."""
    sampler = find_sampler(plan.sampler)
    if resolve_schedule(sampler, first).label == plan.schedule:
        return ""
    return AUTOMATIC if sampler.default_schedule == plan.schedule else plan.schedule


def _down(pixels: int) -> int:
    return pixels // PIXEL_STEP * PIXEL_STEP


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
