"""A finished picture's text, as AUTOMATIC1111 writes it: the same keys in the same order.

    prompt, may be several lines
    Negative prompt: ..., may be several lines, only if there is one
    Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 1, Size: 512x512, ...

A parameter stands there only where it differs from its default and acts on the pixels. Our own keys are `Model id`, for
diffusers folders, which have no A1111 hash, `Prediction type`, `Old Karras sigmas`, `Face restoration file`, `CodeFormer weight`, `SDXL crop top` and `SDXL crop left`, `Branch step` with `Branch origin`, which
is the whole text of the picture that was branched from, `Init image` and `Mask image` with what belongs to them (`studio.infotext.source`), `SD upscale scale factor`, and `Backend`, which the reproduce check reads. A prompt that was drawn from wildcards and choices stands there as it was drawn; what it was drawn from are `Template` and
`Negative Template`, the keys of sd-dynamic-prompts.
"""

from __future__ import annotations

from pathlib import PurePath

from studio.infotext.hires import hires_pairs
from studio.infotext.keys import OPTION_FIELDS, PROGRAM, TEMPLATE_KEYS
from studio.infotext.modules import module_pairs
from studio.infotext.quote import quote
from studio.infotext.source import source_pairs
from studio.infotext.upscale import upscale_pairs
from studio.prompt.networks import extract_networks
from studio.samplers.guidance import is_guided
from studio.samplers.table import SamplerSpec, find_sampler, find_schedule
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo
from studio.schema.parts import SamplerOptions
from studio.schema.resolved import HiresPlan, HypernetworkUse, RefinerPlan, ResolvedRequest

Pairs = dict[str, object]


def write_infotext(resolved: ResolvedRequest, index: int, version: str, backend: str = "") -> str:
    """The text of picture `index` (0-based over the whole job).

    `version` is the program's bare version number; `backend` says what painted: versions, device, number format, attention kernel.
    """
    passes = _passes(resolved)
    pairs: Pairs = {
        "Steps": resolved.steps,
        "Sampler": resolved.sampler,
        "Schedule type": resolved.schedule_label,
        "CFG scale": resolved.cfg_scale,
        **_image_scale(resolved),
        "Seed": resolved.seeds[index],
        **({"Face restoration": resolved.faces.name} if resolved.faces else {}),
        "Size": f"{resolved.width}x{resolved.height}",
        **_model(resolved.model),
        **_eight_bits(resolved),
        **_vae(resolved.vae),
        **module_pairs(resolved),
        **_start_noise(resolved, index),
        **_strength(resolved),
    }
    if resolved.model.inpaint:  # without a mask of a picture that is hidden whole; A1111 tells it too
        pairs["Conditional mask weight"] = resolved.mask.conditioning_weight if resolved.mask else 1.0
    if resolved.clip_skip > 1:
        pairs["Clip skip"] = resolved.clip_skip
    if resolved.sampler_options.ensd and any(_stirred(resolved.sampler_options, sampler) for _, sampler in passes):
        pairs["ENSD"] = resolved.sampler_options.ensd
    merging = {"Token merging ratio": resolved, "Token merging ratio hr": resolved.hires}
    pairs.update({key: part.token_merging_ratio for key, part in merging.items() if part and part.token_merging_ratio})
    if resolved.source:
        pairs["Init image hash"] = resolved.source.image.md5
    if resolved.rng != "GPU":
        pairs["RNG"] = resolved.rng
    if resolved.tiling:
        pairs["Tiling"] = True
    pairs.update(hires_pairs(resolved))
    pairs.update(source_pairs(resolved))
    pairs.update(upscale_pairs(resolved))
    pairs.update(_loras(resolved))
    pairs.update(_embeddings(resolved))
    pairs.update(_hypernetwork(resolved.own_hypernetwork))
    pairs.update(_refiner(resolved.any_refiner))
    pairs.update(_conditions(resolved))
    for part, sampler in passes:
        pairs.update(_schedule(resolved.sampler_options, part.schedule, sampler))
        pairs.update(_sampler(resolved.sampler_options, sampler))
        pairs.update(_skipped(resolved.sampler_options, part, sampler))
    pairs.update(_templates(resolved))
    if resolved.branch:
        pairs.update({"Branch step": resolved.branch.step, "Branch origin": resolved.branch.text})
    if backend:
        pairs["Backend"] = backend
    pairs["Version"] = f"{PROGRAM} {version}"
    if resolved.options.user:
        pairs["User"] = resolved.options.user
    negative = f"\nNegative prompt: {resolved.negative.text}" if resolved.negative.text else ""
    parameters = ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())
    return f"{resolved.positive.text}{negative}\n{parameters}".strip()


def _templates(resolved: ResolvedRequest) -> Pairs:
    """What the prompts were drawn from, where they were."""
    drawn_from = (resolved.options.template, resolved.options.negative_template)
    return {key: template for key, template in zip(TEMPLATE_KEYS, drawn_from, strict=True) if template}


def _image_scale(resolved: ResolvedRequest) -> Pairs:
    """Of a checkpoint that is told of the picture it follows instructions about."""
    source = resolved.source
    return {"Image CFG scale": source.image_cfg_scale} if source and resolved.model.edit else {}


def _strength(resolved: ResolvedRequest) -> Pairs:
    """Of the second pass, or over a picture; there is only one of the two."""
    part = resolved.hires or resolved.source
    return {"Denoising strength": part.denoising_strength} if part else {}


def _conditions(resolved: ResolvedRequest) -> Pairs:
    """How prompts, noise levels and latents are read, where that is not the usual way."""
    pairs: Pairs = {}
    if resolved.emphasis != "Original" and _has_syntax(resolved):
        pairs["Emphasis"] = resolved.emphasis
    if resolved.old_prompt_editing and _has_brackets(resolved):
        pairs["Old prompt editing timelines"] = True
    for padding in {part.padding for part, _ in _passes(resolved)} - {"off"}:
        pairs["Pad conds" if padding == "chunks" else "Pad conds v0"] = True
    if resolved.noise_schedule != "Default":
        pairs["Noise Schedule"] = resolved.noise_schedule
    if resolved.downcast_alphas:
        pairs["Downcast alphas_cumprod"] = True
    if resolved.tiny_encoder:
        pairs["VAE Encoder"] = "TAESD"
    if resolved.tiny_decoder:
        pairs["VAE Decoder"] = "TAESD"
    if resolved.faces:
        pairs.update(_faces(resolved.faces))
    if resolved.deep_cache > 1:
        pairs["DeepCache interval"] = resolved.deep_cache
    if resolved.prediction_type != "Automatic":
        pairs["Prediction type"] = resolved.prediction_type
    crop = {"SDXL crop top": resolved.sdxl_crop_top, "SDXL crop left": resolved.sdxl_crop_left}
    pairs.update({key: pixels for key, pixels in crop.items() if pixels})
    return pairs


def _faces(plan: FacePlan) -> Pairs:
    """Which file it was, where the name does not say, and how much of a face CodeFormer kept."""
    stem = PurePath(plan.file).stem
    pairs: Pairs = {} if stem == plan.name else {"Face restoration file": stem}
    return {**pairs, "CodeFormer weight": plan.weight} if plan.architecture == "CodeFormer" else pairs


def _passes(resolved: ResolvedRequest) -> list[tuple[ResolvedRequest | HiresPlan, SamplerSpec]]:
    """What is said of each pass, and its sampler."""
    parts: list[ResolvedRequest | HiresPlan] = [resolved, resolved.hires] if resolved.hires else [resolved]
    return [(part, find_sampler(part.sampler)) for part in parts]


def _stirred(options: SamplerOptions, sampler: SamplerSpec) -> bool:
    """Whether it draws noise by generators that the seed delta acts on."""
    return sampler.uses_ensd and bool(sampler.eta(options))


def _model(model: ModelInfo) -> Pairs:
    """A file goes by its stem and its hash, once that is known; a folder by its name in the library and its id."""
    if model.layout == "folder":
        return {"Model": model.name, **({"Model id": model.model_id} if model.model_id else {})}
    pairs: Pairs = {"Model hash": model.short_hash} if model.short_hash else {}
    return {**pairs, "Model": model.name.rpartition("/")[2]}


def _eight_bits(resolved: ResolvedRequest) -> Pairs:
    """How weights were kept, where that was in eight bits."""
    if resolved.fp8_weight == "Disable":
        return {}
    return {"FP8 weight": resolved.fp8_weight, "Cache FP16 weight for LoRA": resolved.cache_fp16_weight}


def _vae(vae: ModelInfo | None) -> Pairs:
    if vae is None:
        return {}
    pairs: Pairs = {"VAE hash": vae.short_hash} if vae.short_hash else {}
    return {**pairs, "VAE": PurePath(vae.path).name}


def _refiner(plan: RefinerPlan | None) -> Pairs:
    """Its title, and where it took over."""
    if plan is None:
        return {}
    pairs: Pairs = {"Refiner": plan.model.short_title, "Refiner switch at": plan.switch_at}
    return {"Refiner switch by sampling steps": True, **pairs} if plan.from_call is not None else pairs


def _start_noise(resolved: ResolvedRequest, index: int) -> Pairs:
    """What is done to the noise of picture `index`'s seed."""
    pairs: Pairs = {}
    if resolved.variation:
        pairs["Variation seed"] = resolved.variation.seeds[index]
        pairs["Variation seed strength"] = resolved.variation.strength
    if resolved.seed_resize:
        pairs["Seed resize from"] = f"{resolved.seed_resize.width}x{resolved.seed_resize.height}"
    return pairs


def _loras(resolved: ResolvedRequest) -> Pairs:
    """`name: hash` of every LoRA whose hash is known; the name is as in its tag, without the separators."""
    hashes = {
        use.name.replace(":", "").replace(",", ""): use.model.short_hash
        for use in resolved.all_loras
        if use.model.short_hash
    }
    return {"Lora hashes": ", ".join(f"{name}: {short_hash}" for name, short_hash in hashes.items())} if hashes else {}


def _embeddings(resolved: ResolvedRequest) -> Pairs:
    """`word: hash` of every embedding, the word without the separators; where no hash is known yet the word alone, under Forge's key."""
    found = {use.name.replace(":", "").replace(",", ""): use.model.short_hash for use in resolved.all_embeddings}
    hashes = [f"{name}: {short_hash}" for name, short_hash in found.items() if short_hash]
    words = [name for name, short_hash in found.items() if not short_hash]
    pairs = {"TI hashes": ", ".join(hashes), "TI": ", ".join(words)}
    return {key: value for key, value in pairs.items() if value}


def _hypernetwork(use: HypernetworkUse | None) -> Pairs:
    """The request's own; those of the prompt stand there as tags. A1111 knows no hash of them."""
    return {"Hypernet": use.name, "Hypernet strength": use.multiplier} if use else {}


def _has_syntax(resolved: ResolvedRequest) -> bool:
    """Whether the mode of emphasis makes a difference: brackets, or what is literal only in mode None."""
    signs = "([" if resolved.emphasis != "None" else ("(", "[", "\\", "BREAK")
    return any(sign in text for sign in signs for text in _texts(resolved))


def _has_brackets(resolved: ResolvedRequest) -> bool:
    """Whether a prompt may be edited over the steps."""
    return any("[" in text for text in _texts(resolved))


def _texts(resolved: ResolvedRequest) -> list[str]:
    """The prompts without their tags."""
    plans = [resolved.positive, resolved.negative]
    plans += [resolved.hires.positive, resolved.hires.negative] if resolved.hires else []
    return [extract_networks(plan.text)[0] for plan in plans]


def _schedule(options: SamplerOptions, schedule: str, sampler: SamplerSpec) -> Pairs:
    """Overrides of the noise levels. CompVis samplers (timesteps) take theirs from a table and obey only the first."""
    pairs: Pairs = {}
    if options.discard_penultimate and not sampler.discard_penultimate:
        pairs["Discard penultimate sigma"] = True
    if sampler.timesteps:
        return pairs
    if options.old_karras:
        pairs["Old Karras sigmas"] = True
    if options.sigma_min:
        pairs["Schedule min sigma"] = options.sigma_min
    if options.sigma_max:
        pairs["Schedule max sigma"] = options.sigma_max
    default_rho = find_schedule(schedule).default_rho
    if options.rho and default_rho > 0 and options.rho != default_rho:
        pairs["Schedule rho"] = options.rho
    if schedule == "Beta":
        pairs["Beta schedule alpha"] = options.beta_dist_alpha
        pairs["Beta schedule beta"] = options.beta_dist_beta
    if options.sgm_noise_multiplier:
        pairs["SGM noise multiplier"] = True
    return pairs


def _sampler(options: SamplerOptions, sampler: SamplerSpec) -> Pairs:
    """Parameters of the sampler itself, where it has them."""
    pairs: Pairs = {}
    if sampler.default_eta is not None and sampler.eta(options) != sampler.default_eta:
        pairs["Eta DDIM" if sampler.timesteps else "Eta"] = sampler.eta(options)
    if sampler.churn and options.s_churn:
        pairs["Sigma churn"] = options.s_churn
        pairs.update({"Sigma tmin": options.s_tmin} if options.s_tmin else {})
        pairs.update({"Sigma tmax": options.s_tmax} if options.s_tmax else {})
    if options.s_noise != 1.0 and _adds_noise(options, sampler):
        pairs["Sigma noise"] = options.s_noise
    if sampler.continuous_time:
        defaults = SamplerOptions()
        for key, field in OPTION_FIELDS.items():
            if field.startswith("uni_pc_") and getattr(options, field) != getattr(defaults, field):
                pairs[key] = getattr(options, field)
    return pairs


def _skipped(options: SamplerOptions, part: ResolvedRequest | HiresPlan, sampler: SamplerSpec) -> Pairs:
    """When the negative prompt was left out of a pass that would have computed it."""
    if not is_guided(sampler, part.cfg_scale, [branch.weight for branch in part.positive.branches]):
        return {}
    pairs: Pairs = {"Skip Early CFG": options.skip_early_cond} if options.skip_early_cond else {}
    if options.s_min_uncond:
        pairs["NGMS"] = options.s_min_uncond
        pairs.update({"NGMS all steps": True} if options.s_min_uncond_all else {})
    return pairs


def _adds_noise(options: SamplerOptions, sampler: SamplerSpec) -> bool:
    """Whether fresh noise that this scales is mixed in while sampling: by churn, an eta above 0, or a restart."""
    if sampler.timesteps:
        return False
    churns, stirs = sampler.churn and options.s_churn, sampler.default_eta is not None and sampler.eta(options)
    return bool(churns or stirs or sampler.name == "Restart")
