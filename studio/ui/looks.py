"""The fields of the txt2img form: which there are, and how each is shown.

A field has one row in `LOOKS` (label, A1111's element id, how it is shown); `studio.ui.form` makes components of them. Names of
nested fields are dotted: `sampler_options.eta`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from studio.errors import StudioError
from studio.schema.parts import BranchPoint, HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale
from studio.ui.fields import FieldFacts, read_field

OPTIONS = "sampler_options"
PARTS: dict[str, type[BaseModel]] = {
    OPTIONS: SamplerOptions,
    "variation": Variation,
    "seed_resize": SeedResize,
    "refiner": Refiner,
    "hires": HiresPass,
    "source": Source,
    "mask": Mask,
    "sd_upscale": SdUpscale,
    "plot": Plot,
    "branch": BranchPoint,
}
"""Fields of a request that are models themselves; each of their fields has its component."""
SWITCH = "on"
SWITCHED = ("hires",)
"""Parts whose presence no value of theirs tells: the form has a switch for each, `hires.on`, which no request has."""
PICTURED = ("source", "mask")
"""Parts that are there while they name a picture, the mask only with the picture that it belongs to."""

VALUES = "1, 2, 3 · 5-9 (+2) · 1-10 [4] · name, name"
"""How the values of a plot's axis are written."""


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
    "hires.vae": Look("VAE of the second pass", "txt2img_hr_vae"),
    "hires.text_encoders": Look("Text encoders of the second pass", "txt2img_hr_text_encoders"),
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
    "source.image": Look("Picture to begin with", "img2img_image_name"),
    "source.denoising_strength": Look(
        "Denoising strength", "img2img_denoising_strength", {"slider": True, "step": 0.01}
    ),
    "source.resize_mode": Look("Resize mode", "resize_mode"),
    "source.exact_steps": Look("Exactly as many steps as asked for", "setting_img2img_fix_steps"),
    "source.image_cfg_scale": Look("Image CFG scale", "img2img_image_cfg_scale", {"step": 0.05}),
    "source.noise_multiplier": Look("Noise multiplier", "setting_initial_noise_multiplier", {"step": 0.01}),
    "source.extra_noise": Look("Extra noise", "img2img_extra_noise", {"step": 0.01}),
    "mask.image": Look("Mask", "img2img_mask_name"),
    "mask.blur": Look("Mask blur", "img2img_mask_blur", {"slider": True}),
    "mask.inverted": Look("Inpaint not masked", "img2img_mask_mode"),
    "mask.content": Look("Masked content", "img2img_inpainting_fill"),
    "mask.area": Look("Inpaint area", "img2img_inpaint_full_res"),
    "mask.padding": Look("Only masked padding", "img2img_inpaint_full_res_padding", {"slider": True, "step": 4}),
    "mask.rounding": Look("Round the mask", "img2img_mask_round"),
    "mask.conditioning_weight": Look("Conditioning mask weight", "setting_inpainting_mask_weight", {"step": 0.05}),
    "sd_upscale.upscaler": Look("Upscaler", "script_img2img_sd_upscale_upscaler_index"),
    "sd_upscale.scale_factor": Look(
        "Scale factor", "script_img2img_sd_upscale_scale_factor", {"slider": True, "step": 0.05}
    ),
    "sd_upscale.overlap": Look("Tile overlap", "script_img2img_sd_upscale_overlap", {"slider": True, "step": 16}),
    **{
        f"plot.{axis}_{name}": Look(f"{axis.upper()} {name}", f"script_txt2img_xyz_plot_{axis}_{name}", extra)
        for axis in "xyz"
        for name, extra in (("type", {}), ("values", {"placeholder": VALUES}))
    },
    "plot.legend": Look("Draw legend", "script_txt2img_xyz_plot_draw_legend"),
    "plot.margin": Look(
        "Grid margins (px)", "script_txt2img_xyz_plot_margin_size", {"slider": True, "step": 2, "soft_maximum": 100}
    ),
    "plot.random_seeds": Look("A seed for each picture", "script_txt2img_xyz_plot_no_fixed_seeds"),
    "branch.step": Look("Branch from step", "txt2img_branch_step"),
    "branch.origin": Look("Branch origin", "txt2img_branch_origin"),
    "model": Look("Checkpoint", "setting_sd_model_checkpoint"),
    "vae": Look("VAE", "setting_sd_vae"),
    "text_encoders": Look("Text encoders", "setting_text_encoders"),
    "vae_encoder": Look("VAE type for encode", "setting_sd_vae_encode_method"),
    "vae_decoder": Look("VAE type for decode", "setting_sd_vae_decode_method"),
    "hypernetwork": Look("Hypernetwork", "setting_sd_hypernetwork"),
    "hypernetwork_strength": Look(
        "Hypernetwork strength", "txt2img_hypernetwork_strength", {"slider": True, "step": 0.05}
    ),
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
    "fp8_weight": Look("FP8 weight", "setting_fp8_storage"),
    "cache_fp16_weight": Look("Cache FP16 weight for LoRA", "setting_cache_fp16_weight"),
    "face_restoration": Look("Restore faces with", "setting_face_restoration_model"),
    "code_former_weight": Look("CodeFormer weight", "setting_code_former_weight", {"step": 0.05}),
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


def in_words_of_the_form(error: StudioError) -> dict[str, Any]:
    """`error` as data, its field named as the page names it: *CFG scale*, where all other doors say `cfg_scale`."""
    told, look = error.to_dict(), LOOKS.get(error.field or "")
    if look is not None and error.message.startswith(f"{error.field} = "):
        told["message"] = look.label + error.message[len(error.field or "") :]
    return told
