"""The prompts of a request on their way to the text encoders: styles merged, wildcards drawn, taken apart, and what they name found.

The functions of `studio.resolve` that both passes of a picture, and the prompt inspector, go through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from studio.errors import IncompatibleFile, InvalidRequest, StudioError
from studio.families.tiny_vae import Half
from studio.library.embeddings import embedding_words
from studio.prompt.composition import split_composition
from studio.prompt.lengths import lengths_differ
from studio.prompt.networks import NetworkTag, extract_networks, lora_rank, lora_weights
from studio.prompt.schedule import parse_schedule
from studio.prompt.styles import Style, apply_styles
from studio.prompt.weights import weigh
from studio.prompt.wildcards import Lookup, expand
from studio.samplers.table import SamplerSpec
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest
from studio.schema.resolved import EmbeddingUse, InitImage, LoraUse, Padding, PromptBranch, PromptPlan

TEMPLATES = {"prompt": "template", "negative_prompt": "negative_template"}
"""The fields of `RunOptions` that keep what a prompt was drawn from."""


class ModelLookup(Protocol):
    """The part of the library that resolving needs."""

    def checkpoint(self, name: str | None) -> ModelInfo:
        """By name, title or hash; None is the default. Raises `UnknownModel`."""
        ...

    def vae(self, name: str) -> ModelInfo | None:
        """None for "Automatic" and "None". Raises `UnknownModel`."""
        ...

    def text_encoder(self, name: str) -> ModelInfo:
        """A text encoder from a file of its own. Raises `UnknownModel`."""
        ...

    def tiny_vae(self, latent_space: str, half: Half) -> Path:
        """The file of TAESD's `half`. Raises `UnknownModel`, `IncompatibleFile`."""
        ...

    def face_plan(self, name: str, weight: float) -> FacePlan:
        """The files that restore faces for the restorer called `name`. Raises `UnknownModel`, `IncompatibleFile`."""
        ...

    def lora(self, name: str) -> ModelInfo:
        """By name or alias. Raises `UnknownName`."""
        ...

    def hypernetwork(self, name: str) -> ModelInfo:
        """By name. Raises `UnknownName`."""
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

    def upscaler(self, name: str) -> ModelInfo:
        """A model that enlarges pictures, by name. Raises `UnknownName`."""
        ...

    def style(self, name: str) -> Style:
        """By name. Raises `UnknownName`."""
        ...

    def wildcard(self, name: str) -> list[str]:
        """The lines of a wildcard, at least one. Raises `UnknownName`."""
        ...

    def init_image(self, name: str) -> InitImage:
        """A kept picture. Raises `UnknownName` when it is not there any more."""
        ...


def model_calls(sampler: SamplerSpec, steps: int) -> int:
    """The steps that prompt editing counts in: model calls, two a step for samplers of second order, as A1111 counts."""
    return steps * 2 if sampler.second_order else steps


def wordings(request: GenerationRequest, library: ModelLookup, seed: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Both prompts by field: with their styles, without comments, wildcards drawn. And what `RunOptions` keep of it: styles, templates of
    those that were drawn."""
    styles = [library.style(name) for name in request.styles]
    merged = {field: with_styles(field, request, styles) for field in TEMPLATES}
    worded = {field: draw(field, text, library.wildcard, seed) for field, text in merged.items()}
    kept: dict[str, Any] = {TEMPLATES[field]: text for field, text in merged.items() if worded[field] != text}
    if styles:
        kept |= {"styles": request.styles, "style_prompts": tuple(style.prompt for style in styles)}
    return worded, kept


def prompt_plans(
    worded: dict[str, str], calls: int, request: GenerationRequest, before: int | None = None
) -> tuple[PromptPlan, PromptPlan]:
    """Prompt and negative prompt taken apart; only the first may be put together with AND. `before` are the model calls of a first pass."""
    prompt, negative = (extract_networks(worded[field])[0] for field in ("prompt", "negative_prompt"))
    branches = tuple(_branch(text, weight, calls, request, before) for text, weight in split_composition(prompt))
    return (
        PromptPlan(text=worded["prompt"], branches=branches),
        PromptPlan(text=worded["negative_prompt"], branches=(_branch(negative, 1.0, calls, request, before),)),
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


def _branch(
    text: str, weight: float, calls: int, request: GenerationRequest, before: int | None = None
) -> PromptBranch:
    """One part of a prompt over the model calls. Old prompt editing counts a second pass by the calls of the first, as A1111 does."""
    counted = before if before is not None and request.old_prompt_editing and "[" in text else calls
    stretches = parse_schedule(text, counted, before=before, old=request.old_prompt_editing)
    places = {text: place for place, text in enumerate(dict.fromkeys(stretch.text for stretch in stretches))}
    return PromptBranch(
        texts=tuple(tuple(weigh(text, request.emphasis)) for text in places),
        stretches=tuple((stretch.until, places[stretch.text]) for stretch in stretches),
        weight=weight,
    )


def find_embeddings(
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


def find_loras(
    prompt: str, model: ModelInfo | None, library: ModelLookup, *, second_pass: bool = False
) -> tuple[LoraUse, ...]:
    """The LoRAs that the tags of a prompt ask for; see `find_lora`."""
    tags = (tag for tag in extract_networks(prompt)[1] if tag.kind == "lora")
    return tuple(find_lora(tag, model, library, second_pass=second_pass) for tag in tags)


def find_lora(tag: NetworkTag, model: ModelInfo | None, library: ModelLookup, *, second_pass: bool = False) -> LoraUse:
    """The file behind one `<lora:…>` tag, checked against the checkpoint's family where both are known.

    Raises `UnknownName`, `IncompatibleFile` and `InvalidRequest` (weights that are no numbers, a dynamic rank).
    """
    name = tag.positional[0] if tag.positional else ""
    if lora_rank(tag) is not None:
        raise InvalidRequest(
            f"{tag} asks for a dynamic rank, which is not supported: leave the fourth value (dyn) out.", field="prompt"
        )
    info = usable(library.lora(name))
    if model is not None and info.family not in ("unknown", model.family):
        raise IncompatibleFile(
            f"LoRA {info.name!r} was made for {info.family}, the checkpoint {model.name!r} is {model.family}.",
            field="prompt",
        )
    passes = [lora_weights(tag, second_pass=each) for each in (False, True)]  # both are checked, whichever is painted
    te, unet = passes[second_pass]
    course = unet if len(unet) > 1 else ()
    return LoraUse(name=name, model=info, te_weight=te[0][0], unet_weight=unet[0][0], unet_course=course)


def usable(model: ModelInfo) -> ModelInfo:
    """`model`. Raises `IncompatibleFile` for one that cannot be used, with the reason."""
    if model.problem:
        raise IncompatibleFile(f"{model.name} cannot be used: {model.problem}", field="model")
    return model


def padding_of(
    request: GenerationRequest, positive: PromptPlan, negative: PromptPlan, embeddings: Iterable[EmbeddingUse]
) -> Padding:
    """How the prompts of a pass are made equally long. Asked for both ways it is the old one, as in A1111."""
    if not (request.pad_conds or request.pad_conds_v0):
        return "off"
    vectors = {use.name: use.model.vectors for use in embeddings}
    if not lengths_differ(positive.branches, negative.branches[0], vectors):
        return "off"
    return "v0" if request.pad_conds_v0 else "chunks"
