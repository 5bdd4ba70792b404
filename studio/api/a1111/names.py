"""What A1111 calls the fields of a request, in bodies and in `override_settings`, and errors in these words."""

from __future__ import annotations

from typing import get_args

from studio.errors import StudioError
from studio.schema.plot import Plot
from studio.schema.source import InpaintArea, MaskedContent, ResizeMode
from studio.schema.upscale import SdUpscale

FIELDS = {
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
PART_FIELDS = {
    "subseed": "variation.seed",
    "subseed_strength": "variation.strength",
    "seed_resize_from_w": "seed_resize.width",
    "seed_resize_from_h": "seed_resize.height",
    "refiner_checkpoint": "refiner.checkpoint",
    "refiner_switch_at": "refiner.switch_at",
}
"""Fields of optional parts of a request, dotted."""
HIRES_FIELDS = {
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
HIRES_OVERRIDES = {
    "hires_fix_refiner_pass": "refiner",
    "token_merging_ratio_hr": "token_merging_ratio",
    "img2img_extra_noise": "extra_noise",
}
"""What A1111 keeps in its settings about the second pass."""
SOURCE_FIELDS = {
    "denoising_strength": "denoising_strength",
    "resize_mode": "resize_mode",
    "image_cfg_scale": "image_cfg_scale",
    "initial_noise_multiplier": "noise_multiplier",
}
"""Fields of the picture that img2img begins with."""
SOURCE_OVERRIDES = {
    "initial_noise_multiplier": "noise_multiplier",
    "img2img_fix_steps": "exact_steps",
    "img2img_extra_noise": "extra_noise",
}
"""What A1111 keeps in its settings about it."""
MASK_FIELDS = {
    "mask_blur": "blur",
    "mask_round": "rounding",
    "inpainting_fill": "content",
    "inpaint_full_res": "area",
    "inpaint_full_res_padding": "padding",
    "inpainting_mask_invert": "inverted",
}
"""Fields of its mask."""
MASK_OVERRIDES = {"inpainting_mask_weight": "conditioning_weight"}
"""The same of A1111's settings."""
NUMBERED: dict[str, tuple[str | bool, ...]] = {
    "resize_mode": get_args(ResizeMode),
    "inpainting_fill": get_args(MaskedContent),
    "inpaint_full_res": get_args(InpaintArea),
    "inpainting_mask_invert": (False, True),
}
"""What A1111 says by a number, or by yes and no, and its meaning in this order."""
SAMPLER_FIELDS = {name: name for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond")}
OVERRIDES = {
    "sd_model_checkpoint": "model",
    "sd_vae": "vae",
    "CLIP_stop_at_last_layers": "clip_skip",
    "emphasis": "emphasis",
    "randn_source": "rng",
    "code_former_weight": "code_former_weight",
}
PICTURE_OVERRIDES = {
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
    "sd_hypernetwork_strength": "hypernetwork_strength",
    "extra_networks_default_multiplier": "hypernetwork_strength",
    "sd_hypernetwork": "hypernetwork",
    "fp8_storage": "fp8_weight",
    "cache_fp16_weight": "cache_fp16_weight",
    "prediction_type": "prediction_type",
    "deep_cache": "deep_cache",
}
"""What A1111 keeps in its settings and a request says each time; the last two are ours."""
MODULES = "forge_additional_modules"
"""Forge's setting of separate text encoders and VAE, a list of files."""
HIRES_MODULES = "hr_additional_modules"
"""The same of the second pass, in its body."""
PART_OVERRIDES = {"refiner_switch_by_sample_steps": "refiner.by_steps"}
"""The same, of optional parts; dotted."""
SAMPLER_OVERRIDES = {
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
ETA_OF_TIMESTEPS, ETA_OF_OTHERS = "eta_ddim", "eta_ancestral"
"""A1111's settings of eta: of DDIM and its like, and of all other samplers."""
FACES, FACE_RESTORER = "face_restoration", "face_restoration_model"
"""A1111's settings of whether faces are restored where `restore_faces` does not say, and with which network."""
TOKEN_MERGING = "token_merging_ratio_img2img"
"""A1111's setting of token merging in img2img, where the general one is 0."""
KNOWN_OVERRIDES = frozenset().union(
    OVERRIDES,
    PICTURE_OVERRIDES,
    PART_OVERRIDES,
    HIRES_OVERRIDES,
    SOURCE_OVERRIDES,
    MASK_OVERRIDES,
    SAMPLER_OVERRIDES,
    (FACES, FACE_RESTORER, TOKEN_MERGING, MODULES, ETA_OF_TIMESTEPS, ETA_OF_OTHERS),
)
_THEIRS = {
    **{f"sampler_options.{ours}": f"override_settings.{theirs}" for theirs, ours in SAMPLER_OVERRIDES.items()},
    **{f"sampler_options.{name}": name for name in SAMPLER_FIELDS},
    **{ours: f"override_settings.{theirs}" for theirs, ours in (OVERRIDES | PICTURE_OVERRIDES).items()},
    **{ours: f"override_settings.{theirs}" for theirs, ours in PART_OVERRIDES.items()},
    **{ours: theirs for theirs, ours in (FIELDS | PART_FIELDS).items()},
    **{
        f"{part}.{ours}": f"override_settings.{theirs}"
        for part, names in (("hires", HIRES_OVERRIDES), ("source", SOURCE_OVERRIDES), ("mask", MASK_OVERRIDES))
        for theirs, ours in names.items()
    },
    **{
        f"{part}.{ours}": theirs
        for part, names in (("hires", HIRES_FIELDS), ("source", SOURCE_FIELDS), ("mask", MASK_FIELDS))
        for theirs, ours in names.items()
    },
    **{f"plot.{ours}": f"script_args.{ours}" for ours in Plot.model_fields},
    "plot.legend": "script_args.draw_legend",
    "plot.margin": "script_args.margin_size",
    "plot": "script_args",
    "text_encoders": f"override_settings.{MODULES}",
    "hires.text_encoders": HIRES_MODULES,
    "hires.vae": HIRES_MODULES,
    **{f"sd_upscale.{ours}": f"script_args.{ours}" for ours in SdUpscale.model_fields},
    "sd_upscale": "script_args",
    "hires": "enable_hr",
    "source": "init_images",
    "source.image": "init_images",
    "mask.image": "mask",
    "face_restoration": "restore_faces",
    "sampler": "sampler_name",
    "schedule": "scheduler",
}


def in_their_words(error: StudioError) -> StudioError:
    """The same error with A1111's name of the field at fault."""
    if error.field is None:
        return error
    name = _THEIRS.get(error.field, error.field)
    message = error.message
    if message.startswith(f"{error.field} = "):
        message = f"{name} = {message[len(error.field) + 3 :]}"
    return type(error)(message, field=name, choices=error.choices)
