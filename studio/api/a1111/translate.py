"""From A1111's txt2img fields to a request of ours. Pure: the same body gives the same order.

What would change the pixels and is not built is refused by name; what changes nothing is ignored with a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from studio.errors import InvalidRequest, StudioError, UnknownName
from studio.samplers.table import AUTOMATIC, find_sampler, split_legacy_sampler_name
from studio.schema.request import GenerationRequest, RunOptions, make_request


class Txt2ImgBody(BaseModel):
    """A1111's fields with its defaults. Null means the default. Unknown fields are ignored with a warning."""

    model_config = ConfigDict(extra="allow")

    prompt: str | None = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = None
    seed: int | None = -1
    subseed: int | None = -1
    subseed_strength: float | None = 0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = None
    sampler_index: str | None = Field("Euler", description="Old name of sampler_name")
    scheduler: str | None = None
    batch_size: int | None = 1
    n_iter: int | None = 1
    steps: int | None = 50
    cfg_scale: float | None = 7.0
    width: int | None = 512
    height: int | None = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool | None = False
    firstpass_image: str | None = None
    comments: dict[str, Any] | None = None
    enable_hr: bool | None = False
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0
    hr_scale: float | None = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = 0
    hr_resize_x: int | None = 0
    hr_resize_y: int | None = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""
    hr_cfg: float | None = Field(None, description="Forge's; null is the CFG scale")
    force_task_id: str | None = None
    script_name: str | None = None
    script_args: list[Any] | None = Field(default_factory=list)
    send_images: bool | None = True
    save_images: bool | None = False
    alwayson_scripts: dict[str, Any] | None = Field(default_factory=dict)
    infotext: str | None = Field(None, description="Generation text; fills every field that is not given")
    branch: dict[str, Any] | None = Field(
        None,
        description="Ours: `step` and `origin`, as in the native API; its origin fills every field that is not given",
    )


@dataclass(frozen=True)
class Order:
    """A body understood. `persistent` are settings to keep afterwards; `warnings` what was ignored."""

    request: GenerationRequest
    options: RunOptions
    persistent: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def _named(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", "None")


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


_NOT_BUILT: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "firstphase_width",
        _positive,
        "the size of the first pass (old hires. fix); width and height are that, hr_scale enlarges",
    ),
    (
        "firstphase_height",
        _positive,
        "the size of the first pass (old hires. fix); width and height are that, hr_scale enlarges",
    ),
    ("firstpass_image", _named, "a given first pass"),
    ("init_images", bool, "img2img"),
    ("mask", bool, "inpainting"),
    ("script_name", _named, "scripts"),
    ("restore_faces", bool, "face restoration"),
    ("disable_extra_networks", bool, "turning extra networks off; leave the <lora:…> tags out of the prompt"),
)

_FIELDS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "styles": "styles",
    "seed": "seed",
    "batch_size": "batch_size",
    "n_iter": "batch_count",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "width": "width",
    "height": "height",
    "tiling": "tiling",
    "branch": "branch",
}
_PART_FIELDS = {
    "subseed": "variation.seed",
    "subseed_strength": "variation.strength",
    "seed_resize_from_w": "seed_resize.width",
    "seed_resize_from_h": "seed_resize.height",
    "refiner_checkpoint": "refiner.checkpoint",
    "refiner_switch_at": "refiner.switch_at",
}
"""Fields of optional parts of a request, dotted."""
_HIRES_FIELDS = {
    "hr_scale": "scale",
    "hr_resize_x": "width",
    "hr_resize_y": "height",
    "hr_upscaler": "upscaler",
    "hr_second_pass_steps": "steps",
    "hr_checkpoint_name": "checkpoint",
    "denoising_strength": "denoising_strength",
    "hr_sampler_name": "sampler",
    "hr_scheduler": "schedule",
    "hr_cfg": "cfg_scale",
    "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
}
"""Fields of the second pass, which `enable_hr` turns on."""
HIRES_STRENGTH = 0.75
"""A1111's strength of the second pass where none is given."""
_HIRES_OVERRIDES = {
    "hires_fix_refiner_pass": "refiner",
    "token_merging_ratio_hr": "token_merging_ratio",
    "img2img_extra_noise": "extra_noise",
}
"""What A1111 keeps in its settings about the second pass."""
_SAMPLER_FIELDS = {name: name for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond")}
_OVERRIDES = {
    "sd_model_checkpoint": "model",
    "sd_vae": "vae",
    "CLIP_stop_at_last_layers": "clip_skip",
    "emphasis": "emphasis",
    "randn_source": "rng",
}
_PICTURE_OVERRIDES = {
    "use_old_scheduling": "old_prompt_editing",
    "pad_cond_uncond": "pad_conds",
    "pad_cond_uncond_v0": "pad_conds_v0",
    "sd_noise_schedule": "noise_schedule",
    "use_downcasted_alpha_bar": "downcast_alphas",
    "sdxl_crop_top": "sdxl_crop_top",
    "sdxl_crop_left": "sdxl_crop_left",
    "token_merging_ratio": "token_merging_ratio",
    "sd_vae_encode_method": "vae_encoder",
    "sd_vae_decode_method": "vae_decoder",
    "prediction_type": "prediction_type",
    "deep_cache": "deep_cache",
}
"""What A1111 keeps in its settings and a request says each time; the last two are ours."""
_PART_OVERRIDES = {"refiner_switch_by_sample_steps": "refiner.by_steps"}
"""The same, of optional parts; dotted."""
_SAMPLER_OVERRIDES = {
    "eta_ancestral": "eta",
    "eta_ddim": "eta",
    "s_churn": "s_churn",
    "s_tmin": "s_tmin",
    "s_tmax": "s_tmax",
    "s_noise": "s_noise",
    "sigma_min": "sigma_min",
    "sigma_max": "sigma_max",
    "rho": "rho",
    "beta_dist_alpha": "beta_dist_alpha",
    "beta_dist_beta": "beta_dist_beta",
    "eta_noise_seed_delta": "ensd",
    "always_discard_next_to_last_sigma": "discard_penultimate",
    "sgm_noise_multiplier": "sgm_noise_multiplier",
    "use_old_karras_scheduler_sigmas": "old_karras",
    "uni_pc_variant": "uni_pc_variant",
    "uni_pc_skip_type": "uni_pc_skip_type",
    "uni_pc_order": "uni_pc_order",
    "uni_pc_lower_order_final": "uni_pc_lower_order_final",
    "s_min_uncond": "s_min_uncond",
    "s_min_uncond_all": "s_min_uncond_all",
    "skip_early_cond": "skip_early_cond",
}


def translate(
    body: Txt2ImgBody, defaults: GenerationRequest, read_infotext: Callable[[str], dict[str, Any]], preview_every: int
) -> Order:
    """Understand `body`. `defaults` give what A1111 keeps in its settings: model, VAE, clip skip, emphasis, noise source.

    Raises `InvalidRequest` naming A1111's field, for values that are not possible and for what is not built.
    """
    _refuse_what_is_not_built(body)
    warnings = _warnings(body)
    settings = {"model", "vae", "clip_skip", "emphasis", "rng"}
    data: dict[str, Any] = defaults.model_dump(include=settings)
    data |= {"sampler": "Euler", "schedule": AUTOMATIC, "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512}
    if text := body.infotext or (body.branch or {}).get("origin"):
        data |= read_infotext(str(text))
    given = {name: value for name in body.model_fields_set if (value := getattr(body, name)) is not None}
    data |= {ours: given[theirs] for theirs, ours in _FIELDS.items() if theirs in given}
    data["styles"] = [name for name in data.get("styles", ()) if _named(name)]  # A1111's style that is none is "None"
    data |= _sampler(given, data)
    overrides = {key: value for key, value in (body.override_settings or {}).items() if value is not None}
    data |= _parts(given, overrides, data)
    data["hires"] = _hires(given, overrides, data)
    options = dict(data.get("sampler_options", {}))
    options |= {ours: given[theirs] for theirs, ours in _SAMPLER_FIELDS.items() if theirs in given}
    for key, ours in (_OVERRIDES | _PICTURE_OVERRIDES).items():
        if overrides.get(key) not in (None, ""):
            data[ours] = overrides[key]
    options |= {ours: overrides[key] for key, ours in _SAMPLER_OVERRIDES.items() if key in overrides}
    warnings += [
        f"override_settings.{key} is not known here and was ignored."
        for key in sorted(overrides)
        if not _is_override(key)
    ]
    saving = bool(body.save_images) and not body.do_not_save_samples
    grid = bool(body.save_images) and not body.do_not_save_grid
    kept = {} if body.override_settings_restore_afterwards in (True, None) else overrides
    try:
        request = make_request({**data, "sampler_options": options})
    except InvalidRequest as error:
        raise in_their_words(error) from None
    return Order(
        request=request,
        options=RunOptions(save=saving, grid=grid, preview_every=preview_every),
        persistent={key: value for key, value in kept.items() if key in _OVERRIDES},
        warnings=warnings,
    )


def in_their_words(error: StudioError) -> StudioError:
    """The same error with A1111's name of the field at fault."""
    if error.field is None:
        return error
    name = _THEIRS.get(error.field, error.field)
    message = error.message
    if message.startswith(f"{error.field} = "):
        message = f"{name} = {message[len(error.field) + 3 :]}"
    return type(error)(message, field=name, choices=error.choices)


_THEIRS = {
    **{f"sampler_options.{ours}": f"override_settings.{theirs}" for theirs, ours in _SAMPLER_OVERRIDES.items()},
    **{f"sampler_options.{name}": name for name in _SAMPLER_FIELDS},
    **{ours: f"override_settings.{theirs}" for theirs, ours in (_OVERRIDES | _PICTURE_OVERRIDES).items()},
    **{ours: f"override_settings.{theirs}" for theirs, ours in _PART_OVERRIDES.items()},
    **{ours: theirs for theirs, ours in (_FIELDS | _PART_FIELDS).items()},
    **{f"hires.{ours}": theirs for theirs, ours in _HIRES_FIELDS.items()},
    **{f"hires.{ours}": f"override_settings.{theirs}" for theirs, ours in _HIRES_OVERRIDES.items()},
    "sampler": "sampler_name",
    "schedule": "scheduler",
}


def _refuse_what_is_not_built(body: Txt2ImgBody) -> None:
    values = {**(body.model_extra or {}), **{name: getattr(body, name) for name in Txt2ImgBody.model_fields}}
    for name, asks, what in _NOT_BUILT:
        if asks(values.get(name)):
            raise InvalidRequest(f"{name}: {what} is not available in this version. Leave the field out.", field=name)


def _warnings(body: Txt2ImgBody) -> list[str]:
    unknown = [
        f"{name} is not known here and was ignored." for name in sorted(body.model_extra or {}) if name not in _CHECKED
    ]
    scripts = [
        f"The always-on script {name!r} is not installed and was ignored." for name in body.alwayson_scripts or {}
    ]
    return unknown + scripts


_CHECKED = {name for name, _, _ in _NOT_BUILT}


def _is_override(key: str) -> bool:
    return any(
        key in known
        for known in (_OVERRIDES, _PICTURE_OVERRIDES, _PART_OVERRIDES, _HIRES_OVERRIDES, _SAMPLER_OVERRIDES)
    )


def _parts(given: dict[str, Any], overrides: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The optional parts, over those in `data`. A size below 0 is none, as 0 is; a refiner without a switch begins at once."""
    parts: dict[str, dict[str, Any]] = {}
    said = [(ours, given[theirs]) for theirs, ours in _PART_FIELDS.items() if theirs in given]
    said += [(ours, overrides[theirs]) for theirs, ours in _PART_OVERRIDES.items() if theirs in overrides]
    for ours, value in said:
        part, _, name = ours.partition(".")
        value = max(value, 0) if part == "seed_resize" else value
        parts.setdefault(part, dict(data.get(part) or {}))[name] = value
    if "refiner" in parts:
        parts["refiner"].setdefault("switch_at", 0.0)
    return parts


def _hires(given: dict[str, Any], overrides: dict[str, Any], data: dict[str, Any]) -> dict[str, Any] | None:
    """The second pass: on where `enable_hr` says so or, where it says nothing, where the infotext in `data` tells of one."""
    known = data.get("hires")
    if not given.get("enable_hr", known is not None):
        return None
    part: dict[str, Any] = {"denoising_strength": HIRES_STRENGTH} if known is None else dict(known)
    part |= {ours: given[theirs] for theirs, ours in _HIRES_FIELDS.items() if theirs in given}
    for name in ("sampler", "schedule"):
        part[name] = "" if str(part.get(name, "")).casefold().startswith("use same") else part.get(name, "")
    head, tail = split_legacy_sampler_name(part["sampler"])
    if tail is not None and not _is_sampler(part["sampler"]):
        part |= {"sampler": head, "schedule": part["schedule"] or tail}
    for name in ("width", "height"):
        part[name] = max(part.get(name) or 0, 0)
    return part | {ours: overrides[theirs] for theirs, ours in _HIRES_OVERRIDES.items() if theirs in overrides}


def _is_sampler(name: str) -> bool:
    try:
        find_sampler(name)
    except UnknownName:
        return False
    return True


def _sampler(given: dict[str, Any], data: dict[str, Any]) -> dict[str, str]:
    """Sampler and schedule; names from before A1111 1.9 ("DPM++ 2M Karras") carry the schedule at their end."""
    name = given.get("sampler_name") or given.get("sampler_index") or data["sampler"]
    schedule = given.get("scheduler") or data["schedule"]
    head, tail = split_legacy_sampler_name(name)
    if tail is not None and not _is_sampler(name):
        return {"sampler": head, "schedule": tail if schedule == AUTOMATIC else schedule}
    return {"sampler": name, "schedule": schedule}
