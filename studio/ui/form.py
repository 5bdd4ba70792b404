"""The txt2img form: every field of `GenerationRequest` as a component, and the way back.

A field has one row in `LOOKS` (label, A1111's element id, how it is shown); the tabs only say where it stands. Names of
nested fields are dotted: `sampler_options.eta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component
from pydantic import BaseModel, ValidationError

from studio.errors import StudioError
from studio.samplers import SAMPLERS, SCHEDULES
from studio.schema.models import ModelInfo
from studio.schema.request import (
    BranchPoint,
    GenerationRequest,
    HiresPass,
    Refiner,
    SamplerOptions,
    SeedResize,
    Variation,
    invalid_request,
    make_request,
)
from studio.ui.fields import Choices, FieldFacts, control, read_field, shown_number, typed_number

if TYPE_CHECKING:
    from studio.app import Studio

Lookup = Callable[[Any], Any]

OPTIONS = "sampler_options"
PARTS: dict[str, type[BaseModel]] = {
    OPTIONS: SamplerOptions,
    "variation": Variation,
    "seed_resize": SeedResize,
    "refiner": Refiner,
    "hires": HiresPass,
    "branch": BranchPoint,
}
"""Fields of a request that are models themselves; each of their fields has its component."""
SWITCH = "on"
SWITCHED = ("hires",)
"""Parts whose presence no value of theirs tells: the form has a switch for each, `hires.on`, which no request has."""
SEEDS = ("seed", "variation.seed")
ONE_PICTURE = ("batch_count", "batch_size")


@dataclass(frozen=True)
class Look:
    """How one field is shown. `extra` goes to `studio.ui.fields.control`."""

    label: str
    elem_id: str
    extra: dict[str, Any] = field(default_factory=dict)


LOOKS: dict[str, Look] = {
    "prompt": Look("Prompt", "txt2img_prompt", {"lines": 3, "placeholder": "Prompt"}),
    "negative_prompt": Look("Negative prompt", "txt2img_neg_prompt", {"lines": 2, "placeholder": "Negative prompt"}),
    "styles": Look("Styles", "txt2img_styles", {"info": None}),
    "sampler": Look("Sampling method", "txt2img_sampling"),
    "schedule": Look("Schedule type", "txt2img_scheduler"),
    "steps": Look("Steps", "txt2img_steps", {"slider": True}),
    "width": Look("Width", "txt2img_width", {"slider": True, "step": 8}),
    "height": Look("Height", "txt2img_height", {"slider": True, "step": 8}),
    "batch_count": Look("Batch count", "txt2img_batch_count"),
    "batch_size": Look("Batch size", "txt2img_batch_size"),
    "cfg_scale": Look("CFG scale", "txt2img_cfg_scale", {"slider": True, "step": 0.5, "soft_maximum": 30}),
    "seed": Look("Seed", "txt2img_seed"),
    "variation.seed": Look("Variation seed", "txt2img_subseed"),
    "variation.strength": Look("Variation strength", "txt2img_subseed_strength", {"slider": True, "step": 0.01}),
    "seed_resize.width": Look("Resize seed from width", "txt2img_seed_resize_from_w", {"slider": True, "step": 8}),
    "seed_resize.height": Look("Resize seed from height", "txt2img_seed_resize_from_h", {"slider": True, "step": 8}),
    "refiner.checkpoint": Look("Refiner", "txt2img_checkpoint"),
    "refiner.switch_at": Look("Switch at", "txt2img_switch_at", {"slider": True, "step": 0.01}),
    "refiner.by_steps": Look("Switch by sampling steps", "setting_refiner_switch_by_sample_steps"),
    "hires.on": Look("Hires. fix", "txt2img_hr_enable"),
    "hires.scale": Look("Upscale by", "txt2img_hr_scale", {"slider": True, "step": 0.05}),
    "hires.width": Look("Resize width to", "txt2img_hr_resize_x", {"slider": True, "step": 8, "soft_maximum": 2048}),
    "hires.height": Look("Resize height to", "txt2img_hr_resize_y", {"slider": True, "step": 8, "soft_maximum": 2048}),
    "hires.upscaler": Look("Upscaler", "txt2img_hr_upscaler"),
    "hires.steps": Look("Hires steps", "txt2img_hires_steps", {"slider": True}),
    "hires.denoising_strength": Look(
        "Denoising strength", "txt2img_denoising_strength", {"slider": True, "step": 0.01}
    ),
    "hires.checkpoint": Look("Checkpoint of the second pass", "txt2img_hr_checkpoint"),
    "hires.sampler": Look("Hires sampling method", "txt2img_hr_sampler"),
    "hires.schedule": Look("Hires schedule type", "txt2img_hr_scheduler"),
    "hires.cfg_scale": Look("Hires CFG scale", "txt2img_hr_cfg", {"slider": True, "step": 0.5, "soft_maximum": 30}),
    "hires.prompt": Look(
        "Hires prompt", "txt2img_hires_prompt", {"lines": 2, "placeholder": "Empty: the prompt above"}
    ),
    "hires.negative_prompt": Look(
        "Hires negative prompt",
        "txt2img_hires_neg_prompt",
        {"lines": 2, "placeholder": "Empty: the negative prompt above"},
    ),
    "hires.refiner": Look("With Hires. fix, refine in the", "setting_hires_fix_refiner_pass"),
    "hires.token_merging_ratio": Look("Hires token merging", "setting_token_merging_ratio_hr", {"step": 0.1}),
    "hires.extra_noise": Look("Hires extra noise", "setting_img2img_extra_noise", {"step": 0.01}),
    "branch.step": Look("Branch from step", "txt2img_branch_step"),
    "branch.origin": Look("Branch origin", "txt2img_branch_origin"),
    "model": Look("Checkpoint", "setting_sd_model_checkpoint"),
    "vae": Look("VAE", "setting_sd_vae"),
    "vae_encoder": Look("VAE type for encode", "setting_sd_vae_encode_method"),
    "vae_decoder": Look("VAE type for decode", "setting_sd_vae_decode_method"),
    "clip_skip": Look("Clip skip", "setting_CLIP_stop_at_last_layers"),
    "emphasis": Look("Emphasis", "setting_emphasis"),
    "old_prompt_editing": Look("Old prompt editing timelines", "setting_use_old_scheduling"),
    "pad_conds": Look("Pad conds", "txt2img_pad_conds"),
    "pad_conds_v0": Look("Pad conds v0", "txt2img_pad_conds_v0"),
    "prediction_type": Look("Prediction type", "setting_prediction_type"),
    "noise_schedule": Look("Noise schedule", "setting_sd_noise_schedule"),
    "downcast_alphas": Look("Downcast alphas_cumprod", "txt2img_downcast_alphas"),
    "tiling": Look("Tiling", "txt2img_tiling"),
    "sdxl_crop_top": Look("SDXL crop top", "txt2img_sdxl_crop_top", {"step": 8}),
    "sdxl_crop_left": Look("SDXL crop left", "txt2img_sdxl_crop_left", {"step": 8}),
    "deep_cache": Look("DeepCache interval", "txt2img_deep_cache"),
    "token_merging_ratio": Look("Token merging", "setting_token_merging_ratio", {"step": 0.1}),
    "rng": Look("Random numbers from", "setting_randn_source"),
    "sampler_options.eta": Look("Eta", "txt2img_eta", {"placeholder": "automatic"}),
    "sampler_options.s_churn": Look("Sigma churn", "txt2img_s_churn", {"step": 1}),
    "sampler_options.s_tmin": Look("Sigma tmin", "txt2img_s_tmin"),
    "sampler_options.s_tmax": Look("Sigma tmax", "txt2img_s_tmax"),
    "sampler_options.s_noise": Look("Sigma noise", "txt2img_s_noise"),
    "sampler_options.sigma_min": Look("Schedule min sigma", "txt2img_sigma_min", {"step": 0.01}),
    "sampler_options.sigma_max": Look("Schedule max sigma", "txt2img_sigma_max", {"step": 0.1}),
    "sampler_options.rho": Look("Schedule rho", "txt2img_rho", {"step": 0.5}),
    "sampler_options.beta_dist_alpha": Look("Beta schedule alpha", "txt2img_beta_dist_alpha", {"step": 0.05}),
    "sampler_options.beta_dist_beta": Look("Beta schedule beta", "txt2img_beta_dist_beta", {"step": 0.05}),
    "sampler_options.ensd": Look("Eta noise seed delta", "txt2img_ensd"),
    "sampler_options.uni_pc_variant": Look("UniPC variant", "txt2img_uni_pc_variant"),
    "sampler_options.uni_pc_skip_type": Look("UniPC skip type", "txt2img_uni_pc_skip_type"),
    "sampler_options.uni_pc_order": Look("UniPC order", "txt2img_uni_pc_order"),
    "sampler_options.uni_pc_lower_order_final": Look("UniPC lower order final", "txt2img_uni_pc_lower_order_final"),
    "sampler_options.discard_penultimate": Look("Discard next-to-last sigma", "txt2img_discard_penultimate"),
    "sampler_options.sgm_noise_multiplier": Look("SGM noise multiplier", "txt2img_sgm_noise_multiplier"),
    "sampler_options.old_karras": Look("Old Karras range", "txt2img_old_karras"),
    "sampler_options.s_min_uncond": Look("NGMS", "txt2img_s_min_uncond", {"step": 0.1}),
    "sampler_options.s_min_uncond_all": Look("NGMS all steps", "txt2img_s_min_uncond_all"),
    "sampler_options.skip_early_cond": Look("Skip early CFG", "txt2img_skip_early_cond"),
}


def _facts(name: str) -> FieldFacts:
    part, _, bare = name.rpartition(".")
    return read_field(PARTS[part] if part else GenerationRequest, bare)


SWITCHES = frozenset(f"{part}.{SWITCH}" for part in SWITCHED)
MAYBE_EMPTY = {name: facts for name in LOOKS if name not in SWITCHES and (facts := _facts(name)).number_or_empty}
"""The numbers that may be empty; their components are text fields."""


def number_fields() -> dict[str, dict[str, Any]]:
    """What the page's script has to know of `MAYBE_EMPTY`: where they stand, and what their arrow keys do."""
    return {
        name: {
            "id": LOOKS[name].elem_id,
            "minimum": facts.minimum,
            "maximum": facts.maximum,
            "step": LOOKS[name].extra.get("step", facts.step),
        }
        for name, facts in MAYBE_EMPTY.items()
    }


def field_names() -> list[str]:
    """All fields of a request in their order, nested ones dotted, and the switches: exactly the keys of `LOOKS`."""
    own = [name for name in GenerationRequest.model_fields if name not in PARTS]
    nested = [f"{part}.{name}" for part, model in PARTS.items() for name in model.model_fields]
    return own + nested + sorted(SWITCHES)


def sampler_choices() -> list[str]:
    """Names of the sampling methods, in the order of the table."""
    return [sampler.name for sampler in SAMPLERS]


def schedule_choices() -> list[str]:
    """Labels of the schedule types, in the order of the table."""
    return [schedule.label for schedule in SCHEDULES]


def model_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """(what is shown, name) of the models that can be used: `name [hash]`, or `name · id` for folders, which have no hash."""
    return [(_shown(model), model.name) for model in models if not model.problem]


def _shown(model: ModelInfo) -> str:
    return f"{model.name} · {model.model_id}" if model.model_id else model.title


def vae_choices(vaes: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`Automatic`, then the VAE files that can be used."""
    return [("Automatic", "Automatic"), *model_choices(vaes)]


def refiner_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`None`, then the checkpoints that can be used."""
    return [("None", ""), *model_choices(models)]


def second_choices(models: Iterable[ModelInfo]) -> list[tuple[str, str]]:
    """`Use same checkpoint`, then the checkpoints that can be used."""
    return [("Use same checkpoint", ""), *model_choices(models)]


def style_choices(studio: Studio) -> list[str]:
    """Names of the styles; none while a file of them is damaged."""
    try:
        return [style.name for style in studio.library.styles.styles()]
    except StudioError:
        return []


class Form:
    """The components of one page. `place` puts a field where the layout stands; `read` and `fill` map values."""

    def __init__(self) -> None:
        self.controls: dict[str, Component] = {}

    def place(self, name: str, *, choices: Choices | None = None, **layout: Any) -> Component:
        """Build the component of field `name` here. Each field stands on the page once."""
        look = LOOKS[name]
        part, _, bare = name.rpartition(".")
        if name in SWITCHES:
            words = {"info": GenerationRequest.model_fields[part].description, "value": False, "interactive": True}
            self.controls[name] = gr.Checkbox(label=look.label, elem_id=look.elem_id, **{**words, **layout})
            return self.controls[name]
        owner = PARTS[part] if part else GenerationRequest
        self.controls[name] = control(
            owner, bare, label=look.label, elem_id=look.elem_id, choices=choices, **{**look.extra, **layout}
        )
        return self.controls[name]

    def read(self, values: Mapping[Component, Any]) -> GenerationRequest:
        """The request the form shows. Raises `InvalidRequest` naming the first bad field, its value and what is allowed."""
        data: dict[str, Any] = {part: {} for part in PARTS}
        for name, component in self.controls.items():
            value = values.get(component)
            if name in SEEDS and value is None:
                value = -1
            if name in MAYBE_EMPTY:
                value = typed_number(value)
            part, _, bare = name.rpartition(".")
            (data[part] if part else data)[bare] = value
        if data.get("styles") is None:
            data["styles"] = ()
        for part in SWITCHED:
            data[part] = data[part] if data[part].pop(SWITCH, False) else None
        return make_request(data)

    def fill(self, request: Mapping[str, Any]) -> dict[Component, Any]:
        """Updates that show `request`, a whole request or a part of one; fields it does not name stay as they are."""
        return {
            self.controls[name]: _update(name, value) for name, value in flat(request).items() if name in self.controls
        }


def flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """`{"sampler_options": {"eta": 1}}` as `{"sampler_options.eta": 1}`; all other keys as they are.

    An optional part that is None is off: its fields have their defaults, or are left alone where it has a switch.
    """
    result: dict[str, Any] = {}
    for key, value in request.items():
        if key not in PARTS:
            result[key] = value
            continue
        off = value is None and GenerationRequest.model_fields[key].default is None
        if key in SWITCHED:
            value = {SWITCH: False} if off else {SWITCH: True, **value} if isinstance(value, Mapping) else value
            off = False
        nested = PARTS[key]().model_dump() if off else value
        if isinstance(nested, Mapping):
            result.update({f"{key}.{name}": inner for name, inner in nested.items()})
    return result


def possible(request: Mapping[str, Any], lookups: Mapping[str, Lookup]) -> tuple[dict[str, Any], list[str]]:
    """The part of `request` this form can show, and a note for each value that it cannot.

    `request` comes from a picture, a saved form or another page: anything may be in it. `lookups` has, for each field
    that names something, the function that gives its name on this form and raises `StudioError` where there is no such
    thing. A dotted field then gets its default, any other is left as it is on the form.
    """
    data = _known_fields(request)
    whole, notes = _validated(data)
    shown = {name: whole[name] for name in data if whole[name] is not None}
    for part in SWITCHED:
        asked = request.get(part)
        if part in shown and isinstance(asked, Mapping) and asked.get(SWITCH) is False:
            shown[part] = {**shown[part], SWITCH: False}
    for name, look_up in lookups.items():
        part, _, bare = name.rpartition(".")
        if (part or bare) not in shown:
            continue
        owner = shown
        if part:
            owner = shown[part] = dict(shown[part])
        try:
            owner[bare] = look_up(owner[bare])
        except StudioError as error:
            del owner[bare]
            owner |= {bare: PARTS[part].model_fields[bare].default} if part else {}
            notes.append(f"{error.message} The picture will not come out the same.")
    return shown, notes


def complete(request: Mapping[str, Any]) -> dict[str, Any]:
    """`request` with every field that changes pixels, so that Generate paints exactly this one picture again.

    What a picture does not tell has its default; checkpoint and size alone stay as they are. A text without parameters
    says nothing about the rest of the form, and is given back as it is.
    """
    if "steps" not in request:
        return dict(request)
    blank = GenerationRequest().model_dump(exclude={"model", "width", "height"})
    options = {**blank[OPTIONS], **(request.get(OPTIONS) or {})}
    return {**blank, **request, OPTIONS: options, **dict.fromkeys(ONE_PICTURE, 1)}


def _known_fields(request: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in request.items() if key in GenerationRequest.model_fields}
    for part in PARTS.keys() & data.keys():
        if part in SWITCHED and not isinstance(data[part], Mapping):
            data[part] = None
            continue
        nested = data[part] if isinstance(data[part], Mapping) else {}
        data[part] = {key: value for key, value in nested.items() if key in PARTS[part].model_fields}
    return data


def _validated(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A whole request with `data` in it, and a note for each value that had to be dropped (from `data` too)."""
    notes: list[str] = []
    while True:
        try:
            return GenerationRequest.model_validate(data).model_dump(), notes
        except ValidationError as error:
            notes.append(f"Not taken over: {invalid_request(error).message}")
            _drop(data, error.errors(include_url=False)[0]["loc"])


def _drop(data: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Take the value at `location` out of `data`."""
    first = str(location[0]) if location else ""
    if first in PARTS and len(location) > 1:
        data[first].pop(str(location[1]), None)
    else:
        data.pop(first, None)


def _update(name: str, value: Any) -> Any:
    """A component update; a slider that ends below its field's bound grows to the value it must show."""
    if name in MAYBE_EMPTY:
        return gr.update(value=shown_number(value))
    if isinstance(value, tuple):
        return gr.update(value=list(value))
    soft = LOOKS[name].extra.get("soft_maximum")
    if soft is not None and isinstance(value, (int, float)):
        return gr.update(value=value, maximum=max(soft, value))
    return gr.update(value=value)
