"""What a second pass (hires. fix) comes to: its size, checkpoint and sampler, and how a request names these in one way only.

The sizes are AUTOMATIC1111's: by a factor both sides grow; by one side the other follows; by two sides the picture covers the
size asked for and what is over is cut off evenly. All are rounded down to multiples of 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.encoders import second_names, second_text_encoders, second_vae
from studio.errors import IncompatibleFile, InvalidRequest, StudioError, UnknownName
from studio.families import family
from studio.hypernetworks import find_hypernetworks
from studio.samplers.planning import refuse_long_schedule
from studio.samplers.table import AUTOMATIC, SamplerSpec, ScheduleSpec, find_sampler, find_schedule, resolve_schedule
from studio.schema.models import ModelInfo
from studio.schema.parts import LARGEST_SIDE, SMALLEST_SIDE, HiresPass, RefinerPasses
from studio.schema.request import GenerationRequest
from studio.schema.resolved import HiresPlan, LoraUse, RefinerPlan, ResolvedRequest
from studio.upscalers import ON_PIXELS, Upscaler, find_upscaler
from studio.wording import TEMPLATES, ModelLookup, find_loras, model_calls, prompt_plans, usable, wordings

PIXEL_STEP = 8

ENLARGES_ONLY: dict[str, Any] = {
    "steps": 0, "sampler": "", "schedule": "", "cfg_scale": 0.0, "prompt": "", "negative_prompt": "", "refiner": "first pass",
    "token_merging_ratio": 0.0, "extra_noise": 0.0,
}  # fmt: skip
"""What a second pass without strength has, whatever is asked for: it paints nothing, so there is only the first to be refined."""


@dataclass(frozen=True)
class HiresSize:
    """`final` is cut out of `covering`, both (width, height) in pixels; `resize` is the size asked for, None by a factor."""

    resize: tuple[int, int] | None
    covering: tuple[int, int]
    final: tuple[int, int]


@dataclass(frozen=True)
class FirstPass:
    """What the second pass takes over from the first where nothing else is asked for. `worded` are its prompts by field, as they
    were drawn; `vae` and `text_encoders` are separate ones."""

    model: ModelInfo
    vae: ModelInfo | None
    text_encoders: tuple[ModelInfo, ...]
    worded: Mapping[str, str]
    loras: tuple[LoraUse, ...]


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
    first: FirstPass,
    library: ModelLookup,
    seed: int,
    refiner: Callable[[ModelInfo, int], RefinerPlan | None],
) -> HiresPlan | None:
    """The second pass of `request`; None where it would neither enlarge nor paint.

    Prompts are drawn by `seed`; `refiner` makes the plan of the refiner from the checkpoint and the model calls of a pass.
    Raises as `studio.resolve.resolve` does, naming the part's field.
    """
    part = request.hires
    width, height = request.width // PIXEL_STEP * PIXEL_STEP, request.height // PIXEL_STEP * PIXEL_STEP
    size = hires_size(part, width, height) if part else None
    if part is None or size is None or (size.final == (width, height) and part.denoising_strength == 0):
        return None
    paints, part = part.denoising_strength > 0, _acting(part)
    upscaler, file = find_upscaler(part.upscaler, library, "hires.upscaler")
    model = _painter(part, first, library, upscaler)
    sampler, schedule = _sampling(part, request)
    steps = _possible_steps(part, part.steps or request.steps)
    before, calls = model_calls(find_sampler(request.sampler), request.steps), model_calls(sampler, steps)
    finishing, passes = _refined(part.refiner, lambda: refiner(first.model, before), lambda: refiner(model, calls))
    own = {name: text for name in TEMPLATES if (text := getattr(part, name)).strip()}
    try:
        drawn = wordings(request.model_copy(update=own), library, seed)[0]
        second = {name: (drawn[name].strip() if name in own else "") or text for name, text in first.worded.items()}
        positive, negative = prompt_plans(second, calls, request, before if paints else None)
        loras = _loras(second["prompt"], model, first, library) if paints else first.loras
        hypernetworks = find_hypernetworks(request, second["prompt"], library)
    except StudioError as error:
        error.field = f"hires.{error.field}" if error.field in own else error.field
        raise
    return HiresPlan(
        scale=None if size.resize else part.scale,
        resize=size.resize,
        width=size.final[0],
        height=size.final[1],
        covering=size.covering,
        upscaler=upscaler.name,
        upscaler_model=file,
        model=model,
        steps=steps,
        steps_given=part.steps > 0,
        denoising_strength=part.denoising_strength,
        sampler=sampler.name,
        schedule=schedule.label,
        cfg_scale=part.cfg_scale or request.cfg_scale,
        positive=positive,
        negative=negative,
        loras=loras,
        hypernetworks=hypernetworks,
        vae=second_vae(part, first.vae, library),
        text_encoders=second_text_encoders(part, first.text_encoders, model, library),
        refiner=finishing,
        refiner_passes=passes,
        token_merging_ratio=(part.token_merging_ratio or request.token_merging_ratio) if paints else 0.0,
        extra_noise=part.extra_noise,
    )


def left_out(plan: HiresPlan, first: FirstPass) -> tuple[str, ...]:
    """A sentence about the LoRAs of the prompt that the checkpoint of the second pass goes without."""
    if plan.positive.text != first.worded["prompt"]:
        return ()
    there = {use.model.path for use in plan.loras}
    names = dict.fromkeys(use.name for use in first.loras if use.model.path not in there)
    if not names:
        return ()
    return (
        f"{plan.model.name} ({family(plan.model.family).title}) paints the second pass without "
        f"{', '.join(names)}: LoRAs are for one family of checkpoints.",
    )


def fixed_hires(part: HiresPass | None, resolved: ResolvedRequest, schedule: str) -> HiresPass | None:
    """`part` with its answers written in, as `studio.resolve.fixed` does; `schedule` is what the first pass then asks for.

    What is as in the first pass is left at its default, so that equal pictures come of equal requests.
    """
    plan = resolved.hires
    if part is None or plan is None:
        return None
    vae, encoders = second_names(plan, resolved)
    return HiresPass(
        **({"scale": plan.scale} if plan.scale is not None else {}),
        width=plan.resize[0] if plan.resize else 0,
        height=plan.resize[1] if plan.resize else 0,
        upscaler=plan.upscaler,
        steps=plan.steps if plan.steps_given else 0,
        denoising_strength=plan.denoising_strength,
        checkpoint="" if plan.model.path == resolved.model.path else plan.model.name,
        vae=vae,
        text_encoders=encoders,
        sampler="" if plan.sampler == resolved.sampler else plan.sampler,
        schedule=_named_schedule(plan, schedule),
        cfg_scale=0.0 if plan.cfg_scale == resolved.cfg_scale else plan.cfg_scale,
        prompt="" if plan.positive.text == resolved.positive.text else plan.positive.text,
        negative_prompt="" if plan.negative.text == resolved.negative.text else plan.negative.text,
        refiner=plan.refiner_passes,
        token_merging_ratio=0.0
        if plan.token_merging_ratio == resolved.token_merging_ratio
        else plan.token_merging_ratio,
        extra_noise=plan.extra_noise,
    )


def _painter(part: HiresPass, first: FirstPass, library: ModelLookup, upscaler: Upscaler) -> ModelInfo:
    """The checkpoint of the second pass: the first one's where none is named, and where nothing is painted.

    One of another latent space takes over by way of a picture only. Raises `UnknownModel` and `IncompatibleFile`.
    """
    if not part.checkpoint:
        return first.model
    try:
        model = usable(library.checkpoint(part.checkpoint))
    except StudioError as error:
        error.field = "hires.checkpoint"
        raise
    before, after = family(first.model.family), family(model.family)
    if model.path == first.model.path or part.denoising_strength == 0:
        return first.model
    if before.latent_space == after.latent_space:
        return model
    if upscaler.latents is not None:
        raise IncompatibleFile(
            f"{model.name!r} ({after.title}) cannot go on from the latents of {first.model.name!r} ({before.title}): they mean "
            f"something else to it. Choose an upscaler that enlarges the picture instead: {', '.join(ON_PIXELS)}, or a model.",
            field="hires.checkpoint",
        )
    if first.vae is not None and not part.vae:
        raise IncompatibleFile(
            f"VAE {first.vae.name!r} cannot be that of {first.model.name!r} ({before.title}) and of {model.name!r} ({after.title}): "
            "their latents differ. Choose Automatic, which is each one's own, or another VAE for the second pass (hires.vae).",
            field="vae",
        )
    return model


def _refined(
    asked: RefinerPasses, first: Callable[[], RefinerPlan | None], second: Callable[[], RefinerPlan | None]
) -> tuple[RefinerPlan | None, RefinerPasses]:
    """The refiner of the second pass, and which passes one finishes in the end: none does what its own checkpoint began."""
    before = first() if asked != "second pass" else None
    after = second() if asked != "first pass" else None
    return after, "second pass" if before is None else "both passes" if after else "first pass"


def _loras(prompt: str, model: ModelInfo, first: FirstPass, library: ModelLookup) -> tuple[LoraUse, ...]:
    """Those of a prompt of its own, which must fit; of the first pass's prompt those that do, see `left_out`."""
    if prompt != first.worded["prompt"]:
        return find_loras(prompt, model, library, second_pass=True)
    uses = find_loras(prompt, None, library, second_pass=True)
    return tuple(use for use in uses if use.model.family in ("unknown", model.family))


def _acting(part: HiresPass) -> HiresPass:
    """`part` with what acts of it."""
    return part if part.denoising_strength else part.model_copy(update=ENLARGES_ONLY)


def _sampling(part: HiresPass, request: GenerationRequest) -> tuple[SamplerSpec, ScheduleSpec]:
    """Sampler and running schedule of the second pass; those of the `request` where it names none.

    Raises `UnknownName` naming the part's field.
    """
    sampler, schedule = find_sampler(request.sampler), find_schedule(request.schedule)
    try:
        second = find_sampler(part.sampler) if part.sampler.strip() else sampler
        asked = find_schedule(part.schedule) if part.schedule.strip() else schedule
    except UnknownName as error:
        error.field = f"hires.{error.field}"
        raise
    return second, resolve_schedule(second, asked)


def _possible_steps(part: HiresPass, steps: int) -> int:
    """`steps`. Raises `InvalidRequest` for a strength that is too small for them."""
    if part.denoising_strength:
        refuse_long_schedule(steps, part.denoising_strength, "hires.denoising_strength", "0 only enlarges.")
    return steps


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
