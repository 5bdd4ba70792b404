"""The accordion of a plot (X/Y/Z) in the form: what its three axes change, and how its sheet looks."""

from __future__ import annotations

import gradio as gr

from studio.ui.form import Form
from studio.ui.html import panel
from studio.ui.wiring import listen_js, script

_SWAPS = ("xy", "yz", "xz")


def build_plot(form: Form) -> None:
    """Three rows, one an axis: its type, its values, and a button that writes all there are. Below how many pictures that is."""
    with gr.Accordion("X/Y/Z plot", open=False, elem_id="script_txt2img_xyz_plot"):
        for axis in "xyz":
            _axis(form, axis)
        panel("plot", elem_id="script_txt2img_xyz_plot_size")
        with gr.Row(elem_classes=["ls-row", "ls-plot-swaps"]):
            for pair in _SWAPS:
                _swap(form, *pair)
        form.place("plot.margin")
        with gr.Row(elem_classes=["ls-row", "ls-grid", "ls-switches"]):
            form.place("plot.legend", min_width=160)
            form.place("plot.random_seeds", min_width=160)


def _axis(form: Form, axis: str) -> None:
    with gr.Row(elem_classes=["ls-row"]):
        kind = form.place(f"plot.{axis}_type", scale=5, min_width=120)
        values = form.place(f"plot.{axis}_values", scale=8, min_width=140)
        fill = gr.Button(
            f"All choices for {axis.upper()}",
            elem_id=f"xyz_grid_fill_{axis}_tool_button",
            elem_classes=["ls-icon", "ls-icon-list", "ls-plot-fill"],
            scale=0,
            min_width=34,
        )
    listen_js(fill.click, script("allChoices"), [kind, values], [values])


def _swap(form: Form, one: str, other: str) -> None:
    button = gr.Button(
        f"Swap {one.upper()}/{other.upper()}",
        elem_id=f"{one}{other}_grid_swap_axes_button",
        size="sm",
        scale=1,
        min_width=60,
    )
    here = [form.controls[f"plot.{one}_{name}"] for name in ("type", "values")]
    there = [form.controls[f"plot.{other}_{name}"] for name in ("type", "values")]
    listen_js(button.click, "(a, b, c, d) => [c, d, a, b]", [*here, *there], [*here, *there])
