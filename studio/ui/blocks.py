"""The page as a whole: quick row, tabs, and the wires between form, studio and script."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from studio.schema.request import GenerationRequest
from studio.ui.form import Form, library_choices, model_choices, vae_choices
from studio.ui.handlers import LISTS, Handlers
from studio.ui.html import inline_json, panel
from studio.ui.tabs.settings import build_settings
from studio.ui.tabs.txt2img import build_txt2img
from studio.ui.wiring import listen, listen_js, script

if TYPE_CHECKING:
    from studio.app import Studio

TITLE = "Latent Studio"


def build_blocks(studio: Studio) -> gr.Blocks:
    """The whole page. Calls the studio for its lists and defaults, starts nothing."""
    form, fresh = Form(), studio.default_request()
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as page:
        outcome = gr.JSON(visible=False, elem_id="ls_outcome")
        parcel = gr.Textbox(visible=False, elem_id="ls_parcel")
        browser = gr.Textbox(visible=False, elem_id="ls_browser")
        fill = gr.Button("Fill the form", visible="hidden", elem_id="ls_fill")
        size = gr.Button("Set the size", visible="hidden", elem_id="ls_size")
        seeds = gr.Button("Set the seeds", visible="hidden", elem_id="ls_seeds")
        use = gr.Button("Use a checkpoint", visible="hidden", elem_id="ls_model")
        source = gr.Button("Begin with a picture", visible="hidden", elem_id="ls_source")
        unbranch = gr.Button("Leave the branch", visible="hidden", elem_id="ls_unbranch")
        refresh = _quick_row(studio, form, fresh)
        with gr.Tabs(elem_id="tabs", selected="txt2img"):
            with gr.Tab("txt2img", id="txt2img", elem_id="tab_txt2img", render_children=True):
                generate = build_txt2img(form, fresh, library_choices(studio))
            with gr.Tab("PNG Info", id="pnginfo", elem_id="tab_pnginfo", render_children=True):
                panel("pnginfo")
            with gr.Tab("Train", id="train", elem_id="tab_train", render_children=True):
                panel("train")
            with gr.Tab("Library", id="library", elem_id="tab_library", render_children=True):
                panel("library")
            with gr.Tab("Settings", id="settings", elem_id="tab_settings", render_children=True):
                handlers = Handlers(studio, form, outcome, parcel)
                handlers.settings.update(build_settings(studio, outcome, handlers.change_setting))
        controls = list(form.controls.values())
        listen(generate.click, handlers.submit, set(controls), [outcome], outcome=outcome)
        listen(fill.click, handlers.fill, {parcel}, [*controls, outcome], outcome=outcome, js=script("takeParcel"))
        listen(
            refresh.click,
            handlers.refresh,
            None,
            [*(form.controls[name] for name in LISTS), outcome],
            outcome=outcome,
        )
        _model_choice(form, handlers, outcome, use)
        listen_js(size.click, script("takeSize"), [], [form.controls["width"], form.controls["height"]])
        listen_js(seeds.click, script("takeSeeds"), [], [form.controls["seed"], form.controls["variation.seed"]])
        pictures = [form.controls[name] for name in ("source.image", "mask.image", "hires.on")]
        listen_js(source.click, script("takeSource"), pictures[2:], pictures)
        listen_js(unbranch.click, "() => [1, '']", [], [form.controls["branch.step"], form.controls["branch.origin"]])
        _mirror(form)
        everything = [*controls, *handlers.settings.values(), outcome]
        opened = script("opened", inline_json(list(form.controls)))
        listen(
            page.load,
            handlers.open_page,
            [browser],
            everything,
            outcome=outcome,
            js=script("browserId"),
            told=opened,
            more=controls,
        )
    return page


def folds(page: gr.Blocks) -> dict[str, str]:
    """The accordion in which an element stands, by both element ids; Gradio draws what is in it when it is first opened."""
    found: dict[str, str] = {}
    for block in page.blocks.values():
        around = block.parent
        while around is not None and not isinstance(around, gr.Accordion):
            around = around.parent
        if block.elem_id and around is not None and around.elem_id:
            found[block.elem_id] = around.elem_id
    return found


def _quick_row(studio: Studio, form: Form, fresh: GenerationRequest) -> gr.Button:
    """Brand, checkpoint with refresh, VAE, clip skip; the script adds worker, queue and theme. Returns refresh."""
    with gr.Row(elem_id="quicksettings", elem_classes=["ls-quick"]):
        panel("brand", scale=0)
        models = model_choices(studio.library.checkpoints())
        form.place("model", choices=models, value=fresh.model, scale=0, min_width=220)
        refresh = gr.Button(
            "Look for new models",
            elem_id="refresh_sd_model_checkpoint",
            elem_classes=["ls-icon", "ls-icon-refresh"],
            scale=0,
            min_width=34,
        )
        form.place("vae", choices=vae_choices(studio.library.vaes()), value=fresh.vae, scale=0, min_width=130)
        form.place("clip_skip", value=fresh.clip_skip, scale=0, min_width=74)
        panel("status", scale=1)
    return refresh


def _model_choice(form: Form, handlers: Handlers, outcome: Component, use: gr.Button) -> None:
    """A checkpoint is chosen in the quick row, or with `use`, which the Library presses."""
    model, width, height = (form.controls[name] for name in ("model", "width", "height"))
    put = listen_js(use.click, script("takeModel"), [], [model])
    for trigger in (model.input, put.then):
        listen(
            trigger,
            handlers.select_model,
            {model, width, height},
            [width, height, outcome],
            outcome=outcome,
            always_last=True,
        )


def _mirror(form: Form) -> None:
    """Tell the script every change of the form; it counts tokens and keeps the form for this browser on the server.

    Each field tells of itself alone: Gradio copies all inputs of a listener, and for sixty that takes longer than a key press.
    """
    for name, control in form.controls.items():
        listen_js([control.change], script("formChanged", inline_json([name])), [control])
