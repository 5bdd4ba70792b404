"""The accordion of SD upscale in the form: enlarge the picture to begin with, and paint it tile by tile."""

from __future__ import annotations

import gradio as gr

from studio.ui.fields import Choices
from studio.ui.form import Form


def build_upscale(form: Form, upscalers: Choices) -> None:
    """The upscaler, which is off at first, the factor and the overlap. It shows while there is a picture to begin with."""
    with (
        gr.Column(elem_classes=["ls-source-options", "ls-upscale"]),
        gr.Accordion("SD upscale", open=False, elem_id="script_img2img_sd_upscale"),
    ):
        form.place("sd_upscale.upscaler", choices=upscalers)
        with gr.Row(elem_classes=["ls-row"]):
            form.place("sd_upscale.scale_factor", scale=5, min_width=120)
            form.place("sd_upscale.overlap", scale=5, min_width=120)
