"""From `GenerationRequest` to `ResolvedRequest`: every question answered once, before anything runs.

Pure: reads the request, the settings and the library; touches no model weights, no torch, no network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from studio.encoders import find_text_encoders, sorted_modules
from studio.errors import IncompatibleFile, InvalidRequest, StudioError
from studio.families import family
from studio.hires import PIXEL_STEP, FirstPass, fixed_hires, hires_plan, left_out
from studio.hypernetworks import find_hypernetworks, fixed_hypernetwork
from studio.lineage import adopted, origin_request, refuse_contradictions, refuse_late_step
from studio.plots import expanded, fixed_plot
from studio.samplers.planning import MOST_STEPS, refuse_branch, refuse_long_schedule
from studio.samplers.table import AUTOMATIC, find_sampler, find_schedule, resolve_schedule
from studio.schema.faces import DEFAULT_WEIGHT, FacePlan
from studio.schema.models import ModelInfo
from studio.schema.parts import MAX_SEED, BranchPoint, Refiner, SeedResize
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.schema.resolved import (
    BranchPlan,
    EmbeddingUse,
    HiresPlan,
    PlotPlan,
    PromptPlan,
    RefinerPlan,
    ResolvedRequest,
    SourcePlan,
    VariationPlan,
    in_eight_bits,
)
from studio.schema.source import LATENT_UPSCALE
from studio.sources import given_pictures, mask_plan, run_steps, source_plan
from studio.upscalers import on_latents
from studio.upscaling import fixed_upscale, refuse_branching, upscale_plan
from studio.wording import (
    ModelLookup,
    find_embeddings,
    find_loras,
    model_calls,
    padding_of,
    prompt_plans,
    usable,
    wordings,
)

ORIGIN = "The picture that is branched from"
AS_ASKED = (
    "sampler_options", "steps", "cfg_scale", "batch_size", "batch_count", "clip_skip", "emphasis", "old_prompt_editing",
    "prediction_type", "noise_schedule", "downcast_alphas", "tiling", "deep_cache", "token_merging_ratio", "fp8_weight",
    "cache_fp16_weight", "rng",
)  # fmt: skip
"""Fields that leave no question open."""
CROP = ("sdxl_crop_top", "sdxl_crop_left")
"""Fields for families that are told the size of the picture."""
MAX_PIXELS = 16 * 1024 * 1024
"""Pixels one batch may hold (16 pictures of 1024x1024): beyond that a typing error is likelier than a wish."""


def resolve(
    request: GenerationRequest,
    library: ModelLookup,
    draw_seed: Callable[[], int],
    *,
    selected_checkpoint: str = "",
    options: RunOptions | None = None,
) -> ResolvedRequest:
    """Answer every open question of `request`.

    `draw_seed` gives 0..2**32-1 where the request says -1; `selected_checkpoint` stands in where it names no model.
    Wildcards are drawn by the first seed: one wording for all pictures of the request.
    Raises `UnknownModel` (also for TAESD), `UnknownName` (sampler, schedule, upscaler, LoRA, style, wildcard), `IncompatibleFile` (a model that cannot
    be used, a LoRA of another family, a refiner of other latents), `DamagedFile` (styles, wildcards), `NotAllowed` (a wildcard
    outside of its folder) and `InvalidRequest` (more pixels than one batch may hold, a prompt that grows too long, a branch
    that cannot be or that contradicts its origin; see `studio.lineage`).
    """
    if request.plot is not None:
        return _plotted(request, request.plot, library, draw_seed, selected_checkpoint, options)
    if request.branch is None:
        return _settled(_answered(request, library, draw_seed, selected_checkpoint, options))
    branch = _branch_plan(request, request.branch, library, selected_checkpoint)
    resolved = _settled(_answered(adopted(request, branch.origin), library, draw_seed, selected_checkpoint, options))
    refuse_branching(resolved, "sd_upscale")
    refuse_contradictions(resolved, branch.origin)
    return resolved.model_copy(update={"branch": branch})


def _plotted(
    request: GenerationRequest,
    plot: Plot,
    library: ModelLookup,
    draw_seed: Callable[[], int],
    selected_checkpoint: str,
    options: RunOptions | None,
) -> ResolvedRequest:
    """All cells of a plot, resolved; what is beside them is the first one's."""
    labels, requests = expanded(request, draw_seed)
    found = tuple(
        resolve(one, library, draw_seed, selected_checkpoint=selected_checkpoint, options=options) for one in requests
    )
    notes = tuple(dict.fromkeys(note for cell in found for note in cell.notes))
    plan = PlotPlan(asked=plot, labels=labels, cells=found)
    return found[0].model_copy(update={"plot": plan, "notes": notes})


def _answered(
    request: GenerationRequest,
    library: ModelLookup,
    draw_seed: Callable[[], int],
    selected_checkpoint: str,
    options: RunOptions | None,
) -> ResolvedRequest:
    """`request` without its branch, resolved."""
    width, height = request.width // PIXEL_STEP * PIXEL_STEP, request.height // PIXEL_STEP * PIXEL_STEP
    _check_budget(width, height, request.batch_size)
    model = usable(library.checkpoint(request.model or selected_checkpoint or None))
    vae = library.vae(request.vae)
    seed = request.seed if request.seed >= 0 else draw_seed()
    worded, kept = wordings(request, library, seed)
    sampler = find_sampler(request.sampler)
    asked = find_schedule(request.schedule)
    running = resolve_schedule(sampler, asked)
    seeds, variation = _seeds(request, seed, draw_seed)
    calls = model_calls(sampler, request.steps)
    positive, negative = prompt_plans(worded, calls, request)
    embeddings, notes = _embeddings((positive, negative), model, library)
    loras = find_loras(worded["prompt"], model, library)
    encoders = find_text_encoders(request.text_encoders, model, library)
    source = _source(request, model, library)
    upscale = upscale_plan(request, source, (width, height), library)
    width, height = upscale.tile if upscale else (width, height)
    hires, more = _second_pass(request, FirstPass(model, vae, encoders, worded, loras), library, seed)
    finishing = None if hires and hires.refiner_passes == "second pass" else request.refiner
    families = {model.family, hires.model.family if hires else model.family}
    return ResolvedRequest(
        positive=positive,
        negative=negative,
        embeddings=embeddings,
        notes=tuple(dict.fromkeys((*notes, *more))),
        loras=loras,
        hypernetworks=find_hypernetworks(request, worded["prompt"], library),
        model=model,
        refiner=_refiner(finishing, library, model, model_calls(sampler, run_steps(request))),
        vae=usable(vae) if vae else None,
        text_encoders=encoders,
        **_tiny_vaes(request, family(model.family).latent_space, hires, library),
        sampler=sampler.name,
        schedule=running.label,
        schedule_label=running.label if sampler.default_schedule else asked.label,
        width=width,
        height=height,
        seeds=seeds,
        variation=variation,
        seed_resize=_rounded(request.seed_resize),
        padding=padding_of(request, positive, negative, embeddings),
        faces=_faces(request, library),
        hires=hires,
        source=source,
        mask=mask_plan(request, model, library),
        sd_upscale=upscale,
        extra_noise=request.source.extra_noise if request.source else 0.0,
        **{name: getattr(request, name) for name in AS_ASKED},
        **{name: getattr(request, name) for name in CROP if any(family(one).size_conditioning for one in families)},
        options=(options or RunOptions()).model_copy(update=kept),
    )


def _source(request: GenerationRequest, model: ModelInfo, library: ModelLookup) -> SourcePlan | None:
    """The picture to begin with. Raises `InvalidRequest` also for one too large to be encoded at its own size, and for a strength that is
    too small for as many steps as asked for, where that is asked for."""
    source = source_plan(request, model, library)
    if source and source.exact_steps:
        instead = f"Take {request.steps / MOST_STEPS:g} or more, or turn exact_steps off."
        refuse_long_schedule(request.steps, source.denoising_strength, "source.denoising_strength", instead)
    if source and source.resize_mode == LATENT_UPSCALE:
        _check_budget(source.image.width, source.image.height, 1)
    return source


def _faces(request: GenerationRequest, library: ModelLookup) -> FacePlan | None:
    """What restores the faces of the finished picture."""
    if not request.face_restoration:
        return None
    return library.face_plan(request.face_restoration, request.code_former_weight)


def _settled(resolved: ResolvedRequest) -> ResolvedRequest:
    """`resolved` without a storage of weights that concerns none of its checkpoints."""
    if any(in_eight_bits(resolved.fp8_weight, model) for model in resolved.checkpoints):
        return resolved
    return resolved.model_copy(update={"fp8_weight": "Disable", "cache_fp16_weight": False})


def _second_pass(
    request: GenerationRequest, first: FirstPass, library: ModelLookup, seed: int
) -> tuple[HiresPlan | None, tuple[str, ...]]:
    """The second pass, if there is one, and notes about what is not used in it."""
    plan = hires_plan(request, first, library, seed, partial(_refiner, request.refiner, library))
    if plan is None:
        return None, ()
    _check_budget(*plan.covering, request.batch_size)
    embeddings, notes = _embeddings((plan.positive, plan.negative), plan.model, library)
    padding = padding_of(request, plan.positive, plan.negative, embeddings)
    return plan.model_copy(update={"embeddings": embeddings, "padding": padding}), (*notes, *left_out(plan, first))


def _embeddings(
    prompts: tuple[PromptPlan, PromptPlan], model: ModelInfo, library: ModelLookup
) -> tuple[tuple[EmbeddingUse, ...], tuple[str, ...]]:
    """What `find_embeddings` finds in the prompts of a pass."""
    return find_embeddings((branch for plan in prompts for branch in plan.branches), model, library)


def fixed(request: GenerationRequest, resolved: ResolvedRequest) -> GenerationRequest:
    """`request` with its answers written in (prompts, seed, model, sampler names, size): running it again gives the same pictures.

    A schedule that is the sampler's own becomes Automatic, as A1111 shows it when it reads its infotext: two requests for
    the same pictures are then equal.
    """
    if resolved.plot is not None:
        return fixed_plot(request, resolved.plot, fixed)
    own = find_sampler(resolved.sampler).default_schedule
    asked = find_schedule(request.schedule)
    schedule = AUTOMATIC if own and find_schedule(own) == asked else asked.label
    refiner = resolved.any_refiner
    source, mask = given_pictures(resolved)
    answers = {
        "prompt": resolved.positive.text,
        "negative_prompt": resolved.negative.text,
        "styles": (),
        "seed": resolved.seeds[0],
        "variation": request.variation
        and resolved.variation
        and request.variation.model_copy(update={"seed": resolved.variation.seeds[0]}),
        "seed_resize": resolved.seed_resize,
        "model": resolved.model.name,
        "refiner": request.refiner
        and refiner
        and request.refiner.model_copy(update={"checkpoint": refiner.model.name}),
        "hires": fixed_hires(request.hires, resolved, schedule),
        "source": source,
        "mask": mask,
        **fixed_hypernetwork(resolved),
        "sd_upscale": fixed_upscale(resolved),
        "vae": resolved.vae.name if resolved.vae else "Automatic",
        "text_encoders": tuple(encoder.name for encoder in resolved.text_encoders),
        "vae_encoder": "TAESD" if resolved.tiny_encoder else "Full",
        "vae_decoder": "TAESD" if resolved.tiny_decoder else "Full",
        "fp8_weight": resolved.fp8_weight,
        "cache_fp16_weight": resolved.cache_fp16_weight,
        "face_restoration": resolved.faces.name if resolved.faces else "",
        "code_former_weight": resolved.faces.weight if resolved.faces else DEFAULT_WEIGHT,
        "sampler": resolved.sampler,
        "schedule": schedule,
        "width": resolved.width,
        "height": resolved.height,
    }
    return request.model_copy(update=answers)


def _tiny_vaes(
    request: GenerationRequest, latent_space: str, hires: HiresPlan | None, library: ModelLookup
) -> dict[str, Any]:
    """The files of TAESD's halves that are asked for and act: only an upscaler on pixels and a given picture are encoded.

    Raises `UnknownModel` for a file that is not there, and `IncompatibleFile` where the passes have latents of two kinds: a half is for one.
    """
    enlarges = hires is not None and hires.denoising_strength > 0 and not on_latents(hires.upscaler)
    encodes = enlarges or request.source is not None
    asked = [field for field in ("vae_encoder", "vae_decoder") if getattr(request, field) == "TAESD"]
    if asked and hires is not None and family(hires.model.family).latent_space != latent_space:
        raise IncompatibleFile(
            f"{asked[0]} = 'TAESD' is not possible when {hires.model.name!r} paints the second pass: its latents are of another kind "
            "than those of the first. Choose Full, which is each checkpoint's own.",
            field=asked[0],
        )
    found = {}
    if request.vae_encoder == "TAESD" and encodes:
        found["tiny_encoder"] = str(library.tiny_vae(latent_space, "encoder"))
    if request.vae_decoder == "TAESD":
        found["tiny_decoder"] = str(library.tiny_vae(latent_space, "decoder"))
    return found


def _branch_plan(
    request: GenerationRequest, point: BranchPoint, library: ModelLookup, selected_checkpoint: str
) -> BranchPlan:
    """The origin of a branch, resolved from its text, and where it is left."""
    refuse_branch(find_sampler(request.sampler))
    read = origin_request(point, library.lora_hashes(), library.embedding_hashes())
    asked = make_request(sorted_modules(read.model_dump(), library))

    def no_seed() -> int:
        raise InvalidRequest("The origin's text names no seed, so it cannot be painted again.", field="branch.origin")

    try:
        # What was done to its finished picture does not concern the latents.
        unrestored = asked.model_copy(update={"face_restoration": ""})
        origin = resolve(unrestored, library, no_seed, selected_checkpoint=selected_checkpoint)
    except StudioError as error:
        told = error.message if error.message.startswith(ORIGIN) else f"{ORIGIN}: {error.message}"
        raise type(error)(told, field="branch.origin", choices=error.choices) from error
    refuse_branching(origin, "branch.origin")
    refuse_late_step(point.step, origin)
    return BranchPlan(step=point.step, origin=origin, text=point.origin)


def _seeds(
    request: GenerationRequest, seed: int, draw_seed: Callable[[], int]
) -> tuple[tuple[int, ...], VariationPlan | None]:
    """Seed of every picture, and what is mixed in. They count up from picture to picture; with a variation only its seeds do, as in A1111."""

    def counted(first: int) -> tuple[int, ...]:
        return tuple((first + i) % (MAX_SEED + 1) for i in range(request.picture_count))

    part = request.variation
    if part is None:
        return counted(seed), None
    variation = VariationPlan(seeds=counted(part.seed if part.seed >= 0 else draw_seed()), strength=part.strength)
    return (seed,) * request.picture_count, variation


def _rounded(part: SeedResize | None) -> SeedResize | None:
    """With sides that are multiples of 8, as the picture's own."""
    if part is None:
        return None
    return SeedResize(width=part.width // PIXEL_STEP * PIXEL_STEP, height=part.height // PIXEL_STEP * PIXEL_STEP)


def _check_budget(width: int, height: int, batch_size: int) -> None:
    if width * height * batch_size > MAX_PIXELS:
        raise InvalidRequest(
            f"{batch_size} pictures of {width}x{height} at once are {width * height * batch_size:,} pixels; "
            f"a batch may have {MAX_PIXELS:,}. Lower the batch size and raise the batch count.",
            field="batch_size",
        )


def _refiner(part: Refiner | None, library: ModelLookup, base: ModelInfo, calls: int) -> RefinerPlan | None:
    """The checkpoint that finishes what `base` began; None where it is the one that begins. It must paint in the same latent space."""
    if part is None:
        return None
    try:
        model = usable(library.checkpoint(part.checkpoint))
    except StudioError as error:
        error.field = "refiner.checkpoint"
        raise
    if model.path == base.path:
        return None
    first, second = family(base.family), family(model.family)
    if first.latent_space != second.latent_space:
        raise IncompatibleFile(
            f"{model.name!r} ({second.title}) cannot finish what {base.name!r} ({first.title}) began: their latents differ.",
            field="refiner.checkpoint",
        )
    reached = (call for call in range(calls + 1) if call / calls >= part.switch_at)
    return RefinerPlan(model=model, switch_at=part.switch_at, from_call=next(reached) if part.by_steps else None)
