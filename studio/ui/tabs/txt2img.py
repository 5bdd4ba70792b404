"""The txt2img tab: the form on the left in A1111's order, the stage on the right."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from studio.schema.request import GenerationRequest
from studio.ui.fields import Choices
from studio.ui.form import Form, sampler_choices, schedule_choices
from studio.ui.html import panel
from studio.ui.looks import OPTIONS
from studio.ui.tabs.plot import build_plot
from studio.ui.tabs.upscale import build_upscale
from studio.ui.wiring import listen_js, script


def _options(*names: str) -> tuple[str, ...]:
    return tuple(f"{OPTIONS}.{name}" for name in names)


SAMPLER_PARAMETERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Prompt", ("text_encoders", "emphasis"), ("old_prompt_editing", "pad_conds", "pad_conds_v0")),
    ("Hypernetwork", ("hypernetwork", "hypernetwork_strength"), ()),
    ("Noise", ("rng", *_options("eta", "ensd", "s_churn", "s_tmin", "s_tmax", "s_noise"), "hires.extra_noise"), ()),
    (
        "From a picture",
        ("source.noise_multiplier", "source.extra_noise", "mask.conditioning_weight", "source.image_cfg_scale"),
        ("source.exact_steps", "mask.rounding"),
    ),
    (
        "Noise levels",
        (
            *("prediction_type", "noise_schedule"),
            *_options("sigma_min", "sigma_max", "rho", "beta_dist_alpha", "beta_dist_beta"),
        ),
        ("downcast_alphas", *_options("discard_penultimate", "sgm_noise_multiplier", "old_karras")),
    ),
    ("UniPC", _options("uni_pc_variant", "uni_pc_skip_type", "uni_pc_order"), _options("uni_pc_lower_order_final")),
    (
        "Less work",
        (
            *("deep_cache", "token_merging_ratio", "hires.token_merging_ratio"),
            *_options("s_min_uncond", "skip_early_cond"),
        ),
        _options("s_min_uncond_all"),
    ),
    ("Less memory", ("fp8_weight",), ("cache_fp16_weight",)),
    ("Picture", ("vae_encoder", "vae_decoder", "sdxl_crop_top", "sdxl_crop_left"), ("tiling",)),
    ("Faces", ("face_restoration", "code_former_weight"), ()),
)
"""Title, fields and switches of each group of the accordion."""


def build_txt2img(form: Form, fresh: GenerationRequest, offered: Mapping[str, Choices]) -> gr.Button:
    """Lay the tab out; `fresh` fills it until the browser's own form arrives, `offered` are the names of the library by field.

    Returns the Generate button.
    """
    with gr.Row(elem_id="txt2img_main", elem_classes=["ls-main"]):
        with gr.Column(elem_id="txt2img_settings", elem_classes=["ls-form"], scale=4, min_width=320):
            generate = _prompts(form, offered["styles"])
            _settings(form, fresh, offered)
            panel("loras")
            panel("embeddings")
        with gr.Column(elem_id="txt2img_results", elem_classes=["ls-results"], scale=6, min_width=320):
            panel("stage", elem_id="txt2img_stage")
            panel("queue", elem_id="txt2img_queue")
    return generate


def _prompts(form: Form, styles: Choices) -> gr.Button:
    with gr.Column(elem_id="txt2img_toprow", elem_classes=["ls-card"]):
        form.place("prompt")
        form.place("negative_prompt")
        with gr.Row(elem_id="txt2img_actions", elem_classes=["ls-row"]):
            generate = gr.Button("Generate", variant="primary", elem_id="txt2img_generate", scale=6, min_width=120)
            interrupt = gr.Button("Interrupt", elem_id="txt2img_interrupt", scale=3, min_width=60)
            skip = gr.Button("Skip", elem_id="txt2img_skip", scale=2, min_width=50)
            panel("live", elem_id="txt2img_live", scale=0)
        panel("liveline", elem_id="txt2img_live_line")
        for name in ("branch.step", "branch.origin"):
            form.place(name, visible="hidden")
        panel("branch", elem_id="txt2img_branch")
        form.place("styles", choices=styles)
        panel("tools", elem_id="txt2img_tools")
        panel("inspector", elem_id="txt2img_inspector")
    listen_js(interrupt.click, script("interrupt"))
    listen_js(skip.click, script("skip"))
    return generate


def _settings(form: Form, fresh: GenerationRequest, offered: Mapping[str, Choices]) -> None:
    with gr.Column(elem_id="txt2img_sampling_row", elem_classes=["ls-card"]):
        with gr.Row(elem_classes=["ls-row"]):
            form.place("sampler", choices=sampler_choices(), value=fresh.sampler, scale=5, min_width=120)
            form.place("schedule", choices=schedule_choices(), value=fresh.schedule, scale=4, min_width=110)
            form.place("steps", value=fresh.steps, scale=5, min_width=120)
        _source(form, offered["sd_upscale.upscaler"])
        _hires(form, offered)
        _refiner(form, offered["refiner.checkpoint"])
        with gr.Row(elem_classes=["ls-row"]):
            width = form.place("width", value=fresh.width, scale=5, min_width=90)
            swap = _icon("Swap width and height", "txt2img_res_switch_btn", "swap")
            height = form.place("height", value=fresh.height, scale=5, min_width=90)
            form.place("batch_count", scale=3, min_width=70)
            form.place("batch_size", scale=3, min_width=70)
        panel("sizes", elem_id="txt2img_sizes")
        with gr.Row(elem_classes=["ls-row"]):
            form.place("cfg_scale", value=fresh.cfg_scale, scale=6, min_width=120)
            seed = form.place("seed", scale=5, min_width=100)
            dice = _icon("Random seed", "txt2img_random_seed", "dice")
            reuse = _icon("Seed of the last picture", "txt2img_reuse_seed", "reuse")
        _extra(form)
        build_plot(form)
        with gr.Accordion("Sampler parameters", open=False, elem_id="txt2img_sampler_parameters"):
            _sampler_parameters(form, fresh, offered)
    listen_js(swap.click, "(width, height) => [height, width]", [width, height], [width, height])
    listen_js(dice.click, "() => -1", [], [seed])
    listen_js(reuse.click, script("lastSeed"), [seed], [seed])


def _source(form: Form, upscalers: Choices) -> None:
    """The picture to begin with and its mask: the well is the script's, the options show while there is what they act on."""
    for name in ("source.image", "mask.image"):
        form.place(name, visible="hidden")
    with gr.Column(elem_id="img2img_settings", elem_classes=["ls-source"]):
        panel("source", elem_id="img2img_image")
        with gr.Row(elem_classes=["ls-row", "ls-source-options"]):
            form.place("source.denoising_strength", scale=5, min_width=120)
            form.place("source.resize_mode", scale=5, min_width=120)
        with gr.Column(elem_id="img2img_inpaint_controls", elem_classes=["ls-mask-options"]):
            with gr.Row(elem_classes=["ls-row"]):
                form.place("mask.blur", scale=5, min_width=120)
                form.place("mask.content", scale=5, min_width=120)
            with gr.Row(elem_classes=["ls-row"]):
                form.place("mask.area", scale=5, min_width=120)
                form.place("mask.padding", scale=5, min_width=120)
            form.place("mask.inverted")
        build_upscale(form, upscalers)


def _hires(form: Form, offered: Mapping[str, Choices]) -> None:
    """The second pass: its switch, the size it comes to, and, while it is on, all that can be said about it."""
    same_sampler, same_schedule = ("Use same sampler", ""), ("Use same schedule", "")
    with gr.Column(elem_id="txt2img_hr", elem_classes=["ls-hires"]):
        with gr.Row(elem_classes=["ls-row", "ls-hires-head"]):
            form.place("hires.on")
            panel("hires", elem_id="txt2img_hr_finalres", scale=0)
        with gr.Column(elem_id="txt2img_hr_options", elem_classes=["ls-hires-options"]):
            with gr.Row(elem_classes=["ls-row"]):
                form.place("hires.upscaler", choices=offered["hires.upscaler"], scale=5, min_width=120)
                form.place("hires.steps", scale=5, min_width=120)
                form.place("hires.denoising_strength", scale=5, min_width=120)
            with gr.Row(elem_classes=["ls-row"]):
                form.place("hires.scale", scale=5, min_width=120)
                form.place("hires.width", scale=5, min_width=120)
                form.place("hires.height", scale=5, min_width=120)
            with gr.Row(elem_classes=["ls-row"]):
                form.place("hires.checkpoint", choices=offered["hires.checkpoint"], scale=5, min_width=120)
                form.place("hires.cfg_scale", scale=5, min_width=120)
            with gr.Row(elem_classes=["ls-row"]):
                form.place("hires.vae", choices=offered["hires.vae"], scale=5, min_width=120)
                form.place("hires.text_encoders", choices=offered["hires.text_encoders"], scale=5, min_width=120)
            with gr.Row(elem_classes=["ls-row"]):
                form.place("hires.sampler", choices=[same_sampler, *sampler_choices()], scale=5, min_width=120)
                form.place("hires.schedule", choices=[same_schedule, *schedule_choices()], scale=5, min_width=120)
            form.place("hires.prompt")
            form.place("hires.negative_prompt")


def _refiner(form: Form, refiners: Choices) -> None:
    """The checkpoint that finishes the picture, and when it begins."""
    with gr.Accordion("Refiner", open=False, elem_id="txt2img_refiner"):
        with gr.Row(elem_classes=["ls-row"]):
            form.place("refiner.checkpoint", choices=refiners, scale=6, min_width=140)
            form.place("refiner.switch_at", scale=5, min_width=120)
        with gr.Row(elem_classes=["ls-row"]):
            form.place("hires.refiner", scale=6, min_width=140)
            form.place("refiner.by_steps", scale=5, min_width=120)


def _extra(form: Form) -> None:
    """What may be done to the seed's noise: mixing another in, and taking that of another size."""
    with gr.Accordion("Extra", open=False, elem_id="txt2img_subseed_show"):
        with gr.Row(elem_classes=["ls-row"]):
            subseed = form.place("variation.seed", scale=5, min_width=100)
            dice = _icon("Random variation seed", "txt2img_random_subseed", "dice")
            reuse = _icon("Variation seed of the last picture", "txt2img_reuse_subseed", "reuse")
            form.place("variation.strength", scale=6, min_width=120)
        with gr.Row(elem_classes=["ls-row"]):
            form.place("seed_resize.width", scale=5, min_width=120)
            form.place("seed_resize.height", scale=5, min_width=120)
    listen_js(dice.click, "() => -1", [], [subseed])
    listen_js(reuse.click, script("lastVariationSeed"), [subseed], [subseed])


def _sampler_parameters(form: Form, fresh: GenerationRequest, offered: Mapping[str, Choices]) -> None:
    """Everything else that changes pixels, by what it acts on; three in a row, a group's switches last."""
    settings = {name: getattr(fresh, name) for name in ("rng", "emphasis", "code_former_weight")}
    for title, names, switches in SAMPLER_PARAMETERS:
        with gr.Column(elem_classes=["ls-parameter-group"]):
            gr.Markdown(f"### {title}", elem_classes=["ls-heading"])
            with gr.Row(elem_classes=["ls-row", "ls-grid"]):
                for name in names:
                    choices = offered.get(name)
                    form.place(
                        name, choices=choices, min_width=100, **({"value": settings[name]} if name in settings else {})
                    )
            if switches:
                with gr.Row(elem_classes=["ls-row", "ls-grid", "ls-switches"]):
                    for name in switches:
                        form.place(name, min_width=160)


def _icon(words: str, elem_id: str, icon: str) -> gr.Button:
    """A square button with a drawn icon; its words are for screen readers and the tooltip."""
    return gr.Button(words, elem_id=elem_id, elem_classes=["ls-icon", f"ls-icon-{icon}"], scale=0, min_width=34)
