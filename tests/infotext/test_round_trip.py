"""Requests of every kind survive request -> resolve -> text -> request.

The requests are drawn from the schema, so a field added there is drawn here too, and must come back: unless `acts` says when it
makes no difference to the pixels.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from studio.encoders import sorted_modules
from studio.errors import IncompatibleFile, InvalidRequest, UnknownModel, UnknownName
from studio.infotext import parse_infotext, write_infotext
from studio.prompt import Style
from studio.resolve import MAX_PIXELS, resolve
from studio.samplers.guidance import is_guided
from studio.samplers.table import SAMPLERS, SCHEDULES, SamplerSpec, find_sampler, find_schedule
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo
from studio.schema.parts import BranchPoint, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.schema.resolved import InitImage, ResolvedRequest
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale
from studio.upscalers import ON_PIXELS, UPSCALERS


def info(kind: Any, name: str, **more: Any) -> ModelInfo:
    facts = {"path": f"/m/{name}.safetensors", "layout": "file", "family": "sd1", "size": 1, "mtime": 0.0}
    return ModelInfo.model_validate({"kind": kind, "name": name, **facts, **more})


MODELS = {
    "painter": info("checkpoint", "painter", short_hash="0123456789", text_widths=(768,)),
    "not hashed yet": info("checkpoint", "not hashed yet", text_widths=(768,)),
    "grand": info("checkpoint", "grand", family="sdxl", short_hash="aaaabbbbcc", text_widths=(768, 1280)),
    "filler": info("checkpoint", "filler", short_hash="ccccddddee", inpaint=True, text_widths=(768,)),
    "editor": info("checkpoint", "editor", short_hash="eeeeddddcc", edit=True, text_widths=(768,)),
    "sub/sprout": info(
        *("checkpoint", "sub/sprout"),
        layout="folder",
        path="/m/sub/sprout",
        model_id="abcdefabcdef",
        text_widths=(768,),
    ),
}
ENCODERS = {
    "clip_l": info("text_encoder", "clip_l", text_widths=(768,)),
    "clip_g": info("text_encoder", "clip_g", text_widths=(1280,)),
}
VAE = info("vae", "nice.vae", short_hash="aaaaaaaaaa")
LORA = info("lora", "style", short_hash="0123456789ab")
HYPERNETWORKS = {name: info("hypernetwork", name) for name in ("sub/ink: old", "glaze")}
UPSCALER = info("upscaler", "sub/4x-UltraSharp")
EMBEDDING = info("embedding", "soft (v2)", vectors=2, text_widths=(768,), short_hash="ba9876543210")


class Library:
    """A few checkpoints, a VAE, text encoders, a LoRA, an embedding, a style and a wildcard."""

    def checkpoint(self, name: str | None) -> ModelInfo:
        return MODELS[(name or "painter").partition(" [")[0]]

    def vae(self, name: str) -> ModelInfo | None:
        return None if name == "Automatic" else VAE

    def text_encoder(self, name: str) -> ModelInfo:
        if name not in ENCODERS:
            raise UnknownModel.of("text encoder", name, list(ENCODERS))
        return ENCODERS[name]

    def tiny_vae(self, latent_space: str, half: str) -> Path:
        return Path("/m") / f"{latent_space}_{half}.safetensors"

    def face_plan(self, name: str, weight: float) -> FacePlan:
        return FacePlan(
            name=name,
            architecture="CodeFormer" if name == "CodeFormer" else "GFPGAN",
            file=f"/m/{name}.safetensors",
            detector="/m/found.safetensors",
            weight=weight if name == "CodeFormer" else 0.5,
        )

    def lora(self, name: str) -> ModelInfo:
        assert name == "style"
        return LORA

    def hypernetwork(self, name: str) -> ModelInfo:
        return HYPERNETWORKS[name]

    def lora_hashes(self) -> dict[str, str]:
        return {}

    def embedding_hashes(self) -> dict[str, str]:
        return {}

    def embeddings(self) -> list[ModelInfo]:
        return [EMBEDDING]

    def embedding(self, name: str) -> ModelInfo:
        assert name == EMBEDDING.name
        return EMBEDDING

    def upscaler(self, name: str) -> ModelInfo:
        assert name in UPSCALER.name
        return UPSCALER

    def style(self, name: str) -> Style:
        assert name == "photo"
        return Style(name, "{prompt}, 35mm", "blurry")

    def wildcard(self, name: str) -> list[str]:
        if name != "colour":  # one that was made up of other signs
            raise UnknownName.of("wildcard", name, ["colour"])
        return ["red", "sea green", "(gold:1.2)"]

    def init_image(self, name: str) -> InitImage:
        return InitImage(name=name, path=f"/m/{name}.png", width=640, height=480, md5=name[::-1])


def as_read(text: str) -> str:
    """Readers take the space around lines away, and empty lines at the beginning."""
    return "\n".join(line.strip() for line in text.split("\n")).lstrip("\n")


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<([:\\#"), max_size=20)
PIECES = [
    "a cat",
    ", ",
    "\n",
    "(x:1.2)",
    "(soft \\(V2\\):1.2)",
    "[y]",
    "\\(",
    "Steps: 3, ab: 1, cd: 2",
    "[a:b:0.5]",
    "[a|b]",
    " AND ",
    " BREAK ",
    "{big|small}",
    "__colour__",
    "\n# a remark\n",
]
NEGATIVES = st.lists(st.sampled_from(PIECES) | WORDS, max_size=8).map("".join).map(as_read)
PROMPTS = (
    st.lists(st.sampled_from([*PIECES, "<lora:style:0.5:1>", "<hypernet:glaze:0.5>"]) | WORDS, max_size=8)
    .map("".join)
    .map(as_read)
)
NAMED: dict[str, st.SearchStrategy[Any]] = {
    "prompt": PROMPTS,
    "negative_prompt": NEGATIVES,
    "sampler": st.sampled_from([name for spec in SAMPLERS for name in (spec.name, *spec.aliases)]),
    "schedule": st.sampled_from([spec.label for spec in SCHEDULES]),
    "model": st.sampled_from([None, *MODELS]),
    "vae": st.sampled_from(["Automatic", "nice"]),
    "text_encoders": st.sampled_from([(), ("clip_l",), ("clip_g", "clip_l")]),
    "HiresPass.vae": st.sampled_from(["", "Automatic", "nice"]),
    "HiresPass.text_encoders": st.sampled_from([(), ("clip_l",), ("Built-in",)]),
    "checkpoint": st.sampled_from(["", "None", *MODELS]),
    "styles": st.sampled_from([(), ("photo",)]),
    "hypernetwork": st.sampled_from(["", *HYPERNETWORKS]),
    "upscaler": st.sampled_from([*UPSCALERS.names(), UPSCALER.name]),
    "SdUpscale.upscaler": st.sampled_from(["", *ON_PIXELS, UPSCALER.name]),
    "face_restoration": st.sampled_from(["", "None", "GFPGAN", "CodeFormer", "GFPGANv1.3"]),
    "image": st.sampled_from(["", "0123456789abcdef" * 2, "89abcdef" * 4]),
    "plot": st.none(),  # its text is that of a sheet: see test_plot
    "HiresPass.sampler": st.sampled_from(["", *(spec.name for spec in SAMPLERS)]),
    "HiresPass.schedule": st.sampled_from(["", *(spec.label for spec in SCHEDULES)]),
}
"""Fields whose values are names of something."""


def values(annotation: Any, field: FieldInfo) -> st.SearchStrategy[Any]:
    """What a field of this type may hold."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(st.none() if kind is type(None) else values(kind, field) for kind in arguments)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0], field), max_size=2).map(tuple)
    if annotation is bool:
        return st.booleans()
    low: Any = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high: Any = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    if annotation is int:
        return st.integers(low, high)
    if annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return models(annotation)
    return st.just(field.get_default(call_default_factory=True))


def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Any object of a model; a field has its default as often as another value."""
    fields = {
        name: NAMED.get(f"{model.__name__}.{name}", NAMED.get(name))
        if name in NAMED
        else st.just(field.get_default(call_default_factory=True)) | values(field.annotation, field)
        for name, field in model.model_fields.items()
    }

    def made(drawn: dict[str, Any]) -> BaseModel | None:
        single = dict.fromkeys(("source", "mask", "sd_upscale"))  # these do not go with everything
        for values_given in (
            drawn,
            {**drawn, "mask": None, "hires": None},
            {**drawn, "sd_upscale": None},
            {**drawn, **single},
        ):
            try:
                return model.model_validate(values_given)
            except ValidationError:  # values that the bounds allow and a validator does not
                continue
        return None

    return st.fixed_dictionaries(fields).map(made).filter(lambda whole: whole is not None)


def acts(name: str, spec: SamplerSpec, options: SamplerOptions, schedule: str, guided: bool) -> bool:
    """Whether a sampler option makes a difference to the pixels; one that is not listed always does."""
    sigmas = not spec.timesteps
    eta = spec.eta(options) if spec.default_eta is not None else 0
    noisy = sigmas and bool((spec.churn and options.s_churn) or eta or spec.name == "Restart")
    rules = {
        "eta": spec.default_eta is not None,
        "s_churn": spec.churn,
        "s_tmin": spec.churn and options.s_churn > 0,
        "s_tmax": spec.churn and options.s_churn > 0,
        "s_noise": noisy,
        "sigma_min": sigmas,
        "sigma_max": sigmas,
        "rho": sigmas and find_schedule(schedule).default_rho > 0,
        "beta_dist_alpha": sigmas and schedule == "Beta",
        "beta_dist_beta": sigmas and schedule == "Beta",
        "discard_penultimate": not spec.discard_penultimate,
        "ensd": spec.uses_ensd and eta != 0,
        "sgm_noise_multiplier": sigmas,
        "old_karras": sigmas,
        "s_min_uncond": guided,
        "s_min_uncond_all": guided and options.s_min_uncond > 0,
        "skip_early_cond": guided,
    }
    return rules.get(name, spec.continuous_time if name.startswith("uni_pc_") else True)


def acting(resolved: ResolvedRequest) -> list[dict[str, Any]]:
    """The sampler options that act in each pass, with defaults that depend on sampler and schedule written out."""
    options = resolved.sampler_options
    found = []
    for one in (resolved, resolved.hires):
        if one is not None:
            spec = find_sampler(one.sampler)
            default_rho = find_schedule(one.schedule).default_rho
            written = {**options.model_dump(), "eta": spec.eta(options), "rho": options.rho or default_rho}
            guided = is_guided(spec, one.cfg_scale, [branch.weight for branch in one.positive.branches])
            found.append(
                {name: value for name, value in written.items() if acts(name, spec, options, one.schedule, guided)}
            )
    return found


def painted(resolved: ResolvedRequest, index: int) -> dict[str, Any]:
    """Everything about one picture. Emphasis and the way of prompt editing show in what is encoded."""
    elsewhere = {"batch_size", "batch_count", "options", "emphasis", "old_prompt_editing"}
    found = {**resolved.model_dump(exclude=elsewhere), "sampler_options": acting(resolved)}
    found["seeds"] = found["seeds"][index]
    if found["variation"]:
        found["variation"]["seeds"] = found["variation"]["seeds"][index]
    return found


@given(models(GenerationRequest), st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_request_survives_its_text(request: GenerationRequest, data: st.DataObject) -> None:
    lines = [line.strip() for text in (request.prompt, request.negative_prompt) for line in text.split("\n")]
    assume(not any(line.startswith("Negative prompt:") for line in lines))
    if request.width * request.height * request.batch_size > MAX_PIXELS:
        request = request.model_copy(update={"batch_size": 1})
    try:
        first = resolve(request, Library(), lambda: 7)
    except (IncompatibleFile, InvalidRequest, UnknownName):
        assume(False)
        raise
    index = data.draw(st.integers(0, request.picture_count - 1))
    for plan in (first.positive, first.negative):  # without its remarks a line may end with space
        assume(as_read(plan.text) == plan.text)
    survives(first, index)


def survives(first: ResolvedRequest, index: int) -> str:
    """Picture `index` of a request comes back from its text, which is returned."""
    text = write_infotext(first, index, "1.2.3")
    parsed = parse_infotext(text, embeddings={EMBEDDING.name: EMBEDDING.short_hash or ""})
    second = resolve(make_request(sorted_modules(parsed.request, Library())), Library(), lambda: 8)
    assert [note for note in parsed.notes if "drawn from" not in note] == []
    assert painted(second, 0) == painted(first, index)
    drawn = first.model_copy(update={"options": RunOptions()})  # what was drawn is written, not what it was drawn from
    assert write_infotext(second, 0, "1.2.3") == write_infotext(drawn, index, "1.2.3")
    return text


SHARED = ("width", "height", "seed", "variation", "seed_resize", "rng", "model", "hires", "source", "mask")
"""What a branch has in common with its origin."""


@given(
    st.lists(models(GenerationRequest), min_size=2, max_size=4), st.lists(st.integers(1, 150), min_size=3, max_size=3)
)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # of up to four requests each must be possible
def test_branches_of_branches_survive_their_text(requests: list[GenerationRequest], steps: list[int]) -> None:
    shared = {name: getattr(requests[0], name) for name in SHARED} | {"seed": 5, "batch_count": 1, "batch_size": 1}
    shared["sd_upscale"] = None  # its steps are those of tiles
    text = ""
    for request, step in zip(requests, [1, *steps], strict=False):
        branch = BranchPoint(step=step, origin=text) if text else None
        try:
            plan = resolve(request.model_copy(update={**shared, "branch": branch}), Library(), lambda: 7)
        except (IncompatibleFile, InvalidRequest, UnknownName):
            assume(False)
            raise
        assume(as_read(plan.positive.text) == plan.positive.text and as_read(plan.negative.text) == plan.negative.text)
        assume("Negative prompt:" not in plan.positive.text + plan.negative.text)
        text = survives(plan, 0)


def test_every_field_is_drawn() -> None:
    """A field of a type that `values` does not know would only ever have its default."""
    known = (bool, int, float, str, BaseModel)
    for model in (
        GenerationRequest,
        SamplerOptions,
        Variation,
        SeedResize,
        Refiner,
        HiresPass,
        Source,
        Mask,
        SdUpscale,
    ):
        for name, field in model.model_fields.items():
            if name in NAMED:
                continue
            kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
            drawn = get_origin(field.annotation) is Literal or all(
                isinstance(kind, type) and issubclass(kind, known) for kind in kinds
            )
            assert drawn or name in NAMED, name
            assert name in NAMED or str not in kinds or get_origin(field.annotation) is Literal, name
