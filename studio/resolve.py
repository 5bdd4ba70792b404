"""From `GenerationRequest` to `ResolvedRequest`: every question answered once, before anything runs.

Pure: reads the request, the settings and the library; touches no model weights, no torch, no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from studio.errors import IncompatibleFile, InvalidRequest, StudioError
from studio.families import family
from studio.library.embeddings import embedding_words
from studio.lineage import adopted, origin_request, refuse_contradictions, refuse_late_step
from studio.prompt.composition import split_composition
from studio.prompt.lengths import lengths_differ
from studio.prompt.networks import NetworkTag, extract_networks, lora_rank, lora_weights
from studio.prompt.schedule import parse_schedule
from studio.prompt.styles import Style, apply_styles
from studio.prompt.weights import weigh
from studio.prompt.wildcards import Lookup, expand
from studio.samplers.planning import refuse_branch
from studio.samplers.table import AUTOMATIC, SamplerSpec, find_sampler, find_schedule, resolve_schedule
from studio.schema.models import ModelInfo
from studio.schema.request import MAX_SEED, BranchPoint, GenerationRequest, Refiner, RunOptions, SeedResize
from studio.schema.resolved import (
    BranchPlan,
    EmbeddingUse,
    LoraUse,
    Padding,
    PromptBranch,
    PromptPlan,
    RefinerPlan,
    ResolvedRequest,
    VariationPlan,
)

TEMPLATES = {"prompt": "template", "negative_prompt": "negative_template"}
"""The fields of `RunOptions` that keep what a prompt was drawn from."""
ORIGIN = "The picture that is branched from"
PIXEL_STEP = 8
MAX_PIXELS = 16 * 1024 * 1024
"""Pixels one batch may hold (16 pictures of 1024x1024): beyond that a typing error is likelier than a wish."""


class ModelLookup(Protocol):
    """The part of the library that resolving needs."""

    def checkpoint(self, name: str | None) -> ModelInfo:
        """By name, title or hash; None is the default. Raises `UnknownModel`."""
        ...

    def vae(self, name: str) -> ModelInfo | None:
        """None for "Automatic" and "None". Raises `UnknownModel`."""
        ...

    def lora(self, name: str) -> ModelInfo:
        """By name or alias. Raises `UnknownName`."""
        ...

    def lora_hashes(self) -> dict[str, str]:
        """Short hash -> name of the LoRAs whose hash is known."""
        ...

    def embedding_hashes(self) -> dict[str, str]:
        """Word -> short hash of the embeddings, "" while it is not known."""
        ...

    def embeddings(self) -> list[ModelInfo]:
        """All embeddings, also those that cannot be used."""
        ...

    def embedding(self, name: str) -> ModelInfo:
        """By `ModelInfo.name`, with its hash. Raises `UnknownName`."""
        ...

    def style(self, name: str) -> Style:
        """By name. Raises `UnknownName`."""
        ...

    def wildcard(self, name: str) -> list[str]:
        """The lines of a wildcard, at least one. Raises `UnknownName`."""
        ...


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
    Raises `UnknownModel`, `UnknownName` (sampler, schedule, LoRA, style, wildcard), `IncompatibleFile` (a model that cannot
    be used, a LoRA of another family, a refiner of other latents), `DamagedFile` (styles, wildcards), `NotAllowed` (a wildcard
    outside of its folder) and `InvalidRequest` (more pixels than one batch may hold, a prompt that grows too long, a branch
    that cannot be or that contradicts its origin; see `studio.lineage`).
    """
    if request.branch is None:
        return _answered(request, library, draw_seed, selected_checkpoint, options)
    branch = _branch_plan(request, request.branch, library, selected_checkpoint)
    resolved = _answered(adopted(request, branch.origin), library, draw_seed, selected_checkpoint, options)
    refuse_contradictions(resolved, branch.origin)
    return resolved.model_copy(update={"branch": branch})


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
    model = _usable(library.checkpoint(request.model or selected_checkpoint or None))
    vae = library.vae(request.vae)
    seed = request.seed if request.seed >= 0 else draw_seed()
    worded, templates = _worded(request, library, seed)
    sampler = find_sampler(request.sampler)
    asked = find_schedule(request.schedule)
    running = resolve_schedule(sampler, asked)
    seeds, variation = _seeds(request, seed, draw_seed)
    tags = extract_networks(worded["prompt"])[1]
    calls = model_calls(sampler, request.steps)
    positive, negative = _plans(worded, calls, request)
    told_size = family(model.family).size_conditioning
    embeddings, notes = _embeddings((*positive.branches, *negative.branches), model, library)
    return ResolvedRequest(
        positive=positive,
        negative=negative,
        embeddings=embeddings,
        notes=notes,
        loras=tuple(find_lora(tag, model, library) for tag in tags if tag.kind == "lora"),
        model=model,
        refiner=_refiner(request.refiner, model, library, calls),
        vae=_usable(vae) if vae else None,
        sampler=sampler.name,
        schedule=running.label,
        schedule_label=running.label if sampler.default_schedule else asked.label,
        sampler_options=request.sampler_options,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=width,
        height=height,
        batch_size=request.batch_size,
        batch_count=request.batch_count,
        seeds=seeds,
        variation=variation,
        seed_resize=_rounded(request.seed_resize),
        clip_skip=request.clip_skip,
        emphasis=request.emphasis,
        old_prompt_editing=request.old_prompt_editing,
        padding=_padding(request, positive, negative, embeddings),
        prediction_type=request.prediction_type,
        noise_schedule=request.noise_schedule,
        downcast_alphas=request.downcast_alphas,
        tiling=request.tiling,
        sdxl_crop_top=request.sdxl_crop_top if told_size else 0,
        sdxl_crop_left=request.sdxl_crop_left if told_size else 0,
        deep_cache=request.deep_cache,
        rng=request.rng,
        options=(options or RunOptions()).model_copy(update=templates),
    )


def fixed(request: GenerationRequest, resolved: ResolvedRequest) -> GenerationRequest:
    """`request` with its answers written in (prompts, seed, model, sampler names, size): running it again gives the same pictures.

    A schedule that is the sampler's own becomes Automatic, as A1111 shows it when it reads its infotext: two requests for
    the same pictures are then equal.
    """
    own = find_sampler(resolved.sampler).default_schedule
    asked = find_schedule(request.schedule)
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
        and resolved.refiner
        and request.refiner.model_copy(update={"checkpoint": resolved.refiner.model.name}),
        "vae": resolved.vae.name if resolved.vae else "Automatic",
        "sampler": resolved.sampler,
        "schedule": AUTOMATIC if own and find_schedule(own) == asked else asked.label,
        "width": resolved.width,
        "height": resolved.height,
    }
    return request.model_copy(update=answers)


def _branch_plan(
    request: GenerationRequest, point: BranchPoint, library: ModelLookup, selected_checkpoint: str
) -> BranchPlan:
    """The origin of a branch, resolved from its text, and where it is left."""
    refuse_branch(find_sampler(request.sampler))
    asked = origin_request(point, library.lora_hashes(), library.embedding_hashes())

    def no_seed() -> int:
        raise InvalidRequest("The origin's text names no seed, so it cannot be painted again.", field="branch.origin")

    try:
        origin = resolve(asked, library, no_seed, selected_checkpoint=selected_checkpoint)
    except StudioError as error:
        told = error.message if error.message.startswith(ORIGIN) else f"{ORIGIN}: {error.message}"
        raise type(error)(told, field="branch.origin", choices=error.choices) from error
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


def model_calls(sampler: SamplerSpec, steps: int) -> int:
    """The steps that prompt editing counts in: model calls, two a step for samplers of second order, as A1111 counts."""
    return steps * 2 if sampler.second_order else steps


def _worded(request: GenerationRequest, library: ModelLookup, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Both prompts by field: with their styles, without comments, wildcards drawn. And the templates of those that were drawn."""
    styles = [library.style(name) for name in request.styles]
    merged = {field: with_styles(field, request, styles) for field in TEMPLATES}
    worded = {field: draw(field, text, library.wildcard, seed) for field, text in merged.items()}
    drawn = {TEMPLATES[field]: text for field, text in merged.items() if worded[field] != text}
    return worded, drawn


def _plans(worded: dict[str, str], calls: int, request: GenerationRequest) -> tuple[PromptPlan, PromptPlan]:
    """Prompt and negative prompt taken apart; only the first may be put together with AND."""
    prompt, negative = (extract_networks(worded[field])[0] for field in ("prompt", "negative_prompt"))
    branches = tuple(_branch(text, weight, calls, request) for text, weight in split_composition(prompt))
    return (
        PromptPlan(text=worded["prompt"], branches=branches),
        PromptPlan(text=worded["negative_prompt"], branches=(_branch(negative, 1.0, calls, request),)),
    )


def with_styles(field: str, request: GenerationRequest, styles: Sequence[Style]) -> str:
    """The prompt `field` with the texts of `styles` merged in, without comments. Raises `InvalidRequest` as `apply_styles` does."""
    return apply_styles(getattr(request, field), (getattr(style, field) for style in styles))


def draw(field: str, text: str, lookup: Lookup, seed: int) -> str:
    """The prompt `field` as `seed` words it: wildcards and choices drawn. Raises as `expand` does, naming `field`."""
    try:
        return expand(text, lookup, f"{field} {seed}")
    except StudioError as error:
        error.field = field
        raise


def _branch(text: str, weight: float, calls: int, request: GenerationRequest) -> PromptBranch:
    """One part of a prompt over the model calls."""
    stretches = parse_schedule(text, calls, old=request.old_prompt_editing)
    places = {text: place for place, text in enumerate(dict.fromkeys(stretch.text for stretch in stretches))}
    return PromptBranch(
        texts=tuple(tuple(weigh(text, request.emphasis)) for text in places),
        stretches=tuple((stretch.until, places[stretch.text]) for stretch in stretches),
        weight=weight,
    )


def _embeddings(
    branches: Iterable[PromptBranch], model: ModelInfo, library: ModelLookup
) -> tuple[tuple[EmbeddingUse, ...], tuple[str, ...]]:
    """The embeddings that the wordings of `branches` name; and why others, whose names stand there too, are not used."""
    words = embedding_words(library.embeddings(), model)
    if not (words.usable or words.refused):
        return (), ()
    known, all_names = words.names, words.all_names
    used: dict[str, EmbeddingUse] = {}
    notes: dict[str, str] = {}
    for text in (text for branch in branches for text in branch.texts):
        for name in (found.name for found in known.found_in(text)):
            used[name] = used.get(name) or EmbeddingUse(name=name, model=library.embedding(words.usable[name].name))
        notes |= {f.name: words.refused[f.name] for f in all_names.found_in(text) if f.name in words.refused}
    return tuple(used.values()), tuple(notes.values())


def _padding(
    request: GenerationRequest, positive: PromptPlan, negative: PromptPlan, embeddings: Iterable[EmbeddingUse]
) -> Padding:
    """Asked for both ways it is the old one, as in A1111."""
    if not (request.pad_conds or request.pad_conds_v0):
        return "off"
    vectors = {use.name: use.model.vectors for use in embeddings}
    if not lengths_differ(positive.branches, negative.branches[0], vectors):
        return "off"
    return "v0" if request.pad_conds_v0 else "chunks"


def _check_budget(width: int, height: int, batch_size: int) -> None:
    if width * height * batch_size > MAX_PIXELS:
        raise InvalidRequest(
            f"{batch_size} pictures of {width}x{height} at once are {width * height * batch_size:,} pixels; "
            f"a batch may have {MAX_PIXELS:,}. Lower the batch size and raise the batch count.",
            field="batch_size",
        )


def _usable(model: ModelInfo) -> ModelInfo:
    if model.problem:
        raise IncompatibleFile(f"{model.name} cannot be used: {model.problem}", field="model")
    return model


def _refiner(part: Refiner | None, base: ModelInfo, library: ModelLookup, calls: int) -> RefinerPlan | None:
    """The checkpoint that finishes; None where it is the one that begins. It must paint in the same latent space."""
    if part is None:
        return None
    try:
        model = _usable(library.checkpoint(part.checkpoint))
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


def find_lora(tag: NetworkTag, model: ModelInfo | None, library: ModelLookup) -> LoraUse:
    """The file behind one `<lora:…>` tag, checked against the checkpoint's family where both are known.

    Raises `UnknownName`, `IncompatibleFile` and `InvalidRequest` (weights that are no numbers, a dynamic rank).
    """
    name = tag.positional[0] if tag.positional else ""
    if lora_rank(tag) is not None:
        raise InvalidRequest(
            f"{tag} asks for a dynamic rank, which is not supported: leave the fourth value (dyn) out.", field="prompt"
        )
    info = _usable(library.lora(name))
    if model is not None and info.family not in ("unknown", model.family):
        raise IncompatibleFile(
            f"LoRA {info.name!r} was made for {info.family}, the checkpoint {model.name!r} is {model.family}.",
            field="prompt",
        )
    te_weight, unet_weight = lora_weights(tag)
    return LoraUse(name=name, model=info, te_weight=te_weight, unet_weight=unet_weight)
