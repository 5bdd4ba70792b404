"""The names of parameters, as AUTOMATIC1111 spells them, beside our request fields."""

from __future__ import annotations

NUMBER_FIELDS = {
    "Steps": "steps",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Clip skip": "clip_skip",
    "Token merging ratio": "token_merging_ratio",
    "SDXL crop top": "sdxl_crop_top",
    "SDXL crop left": "sdxl_crop_left",
    "DeepCache interval": "deep_cache",
    "CodeFormer weight": "code_former_weight",
}
"""Numbers of `GenerationRequest`. `Size: 512x768` reads as Size-1 and Size-2. The last four keys are our own."""

CHOICE_FIELDS = {
    "RNG": "rng",
    "Tiling": "tiling",
    "Emphasis": "emphasis",
    "Old prompt editing timelines": "old_prompt_editing",
    "Pad conds": "pad_conds",
    "Pad conds v0": "pad_conds_v0",
    "Noise Schedule": "noise_schedule",
    "Downcast alphas_cumprod": "downcast_alphas",
    "VAE Encoder": "vae_encoder",
    "VAE Decoder": "vae_decoder",
    "FP8 weight": "fp8_weight",
    "Cache FP16 weight for LoRA": "cache_fp16_weight",
    "Prediction type": "prediction_type",
}
"""Fields of `GenerationRequest` with a few named values. The last key is our own: AUTOMATIC1111 asks a file beside the model."""

OPTION_FIELDS = {
    "ENSD": "ensd",
    "Discard penultimate sigma": "discard_penultimate",
    "Schedule min sigma": "sigma_min",
    "Schedule max sigma": "sigma_max",
    "Schedule rho": "rho",
    "Beta schedule alpha": "beta_dist_alpha",
    "Beta schedule beta": "beta_dist_beta",
    "Beta scheduler alpha": "beta_dist_alpha",
    "Beta scheduler beta": "beta_dist_beta",
    "SGM noise multiplier": "sgm_noise_multiplier",
    "Eta": "eta",
    "Eta DDIM": "eta",
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
    "UniPC variant": "uni_pc_variant",
    "UniPC skip type": "uni_pc_skip_type",
    "UniPC order": "uni_pc_order",
    "UniPC lower order final": "uni_pc_lower_order_final",
    "NGMS": "s_min_uncond",
    "NGMS all steps": "s_min_uncond_all",
    "Skip Early CFG": "skip_early_cond",
    "Old Karras sigmas": "old_karras",
}
"""Fields of `SamplerOptions`. The last key is our own: AUTOMATIC1111 does not record that option."""

PART_FIELDS = {
    "Variation seed": "variation.seed",
    "Variation seed strength": "variation.strength",
    "Seed resize from-1": "seed_resize.width",
    "Seed resize from-2": "seed_resize.height",
    "Refiner": "refiner.checkpoint",
    "Refiner switch at": "refiner.switch_at",
    "Refiner switch by sampling steps": "refiner.by_steps",
    "Denoising strength": "hires.denoising_strength",
    "Hires upscale": "hires.scale",
    "Hires resize-1": "hires.width",
    "Hires resize-2": "hires.height",
    "Hires steps": "hires.steps",
    "Hires checkpoint": "hires.checkpoint",
    "Hires CFG Scale": "hires.cfg_scale",
    "Hires prompt": "hires.prompt",
    "Hires negative prompt": "hires.negative_prompt",
    "Hires refiner": "hires.refiner",
    "Token merging ratio hr": "hires.token_merging_ratio",
    "Extra noise": "hires.extra_noise",
    "Branch step": "branch.step",
    "Branch origin": "branch.origin",
}
"""Fields of optional parts of `GenerationRequest`, dotted. A size reads as two keys. Those of a branch are our own: its origin is the
whole text of the picture that was branched from, in quotes."""

SOURCE_KEYS = {
    "Denoising strength": "denoising_strength",
    "Image CFG scale": "image_cfg_scale",
    "Noise multiplier": "noise_multiplier",
    "Extra noise": "extra_noise",
    "Resize mode": "resize_mode",
    "Exact steps": "exact_steps",
    "Init image": "image",
}
"""Fields of the picture to begin with, in a text without a second pass. The last three keys are our own."""

MASK_KEYS = {
    "Mask mode": "inverted",
    "Mask blur": "blur",
    "Inpaint area": "area",
    "Masked area padding": "padding",
    "Masked content": "content",
    "Mask rounding": "rounding",
    "Conditional mask weight": "conditioning_weight",
    "Mask image": "image",
}
"""Fields of its mask. The last key is our own."""

TITLE_KEYS = frozenset({"Refiner", "Hires checkpoint", "Face restoration"})
"""Keys of names that may end in the file's ending; checkpoints are written `name [hash]`."""

HIRES_NAMES = ("Hires upscaler", "Hires sampler", "Hires schedule type")
"""What is looked up by name for the second pass; see `studio.infotext.hires`."""

TEXT_KEYS = frozenset(
    {
        *("Hires prompt", "Hires negative prompt", "Template", "Negative Template"),
        *(f"{fixed}{axis} Values" for fixed in ("", "Fixed ") for axis in "XYZ"),
    }
)
"""Keys of whole texts: a value of theirs that looks like a size is none."""

TEMPLATE_KEYS = ("Template", "Negative Template")
"""What the prompts were drawn from; the prompts themselves are what painted the picture."""

PROGRAM = "Latent Studio"
"""What our `Version` begins with."""
