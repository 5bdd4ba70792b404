"""The look: a Gradio theme whose every colour is a variable of `assets/page.css`, and what goes into the page's head.

Colours live in the stylesheet only, once for dark and once for light; the theme maps Gradio's names onto them.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.html import inline_json
from studio.ui.static import ASSETS, assets_url

FIRST_PAINT = "#15171b"
"""Background before the stylesheet has arrived: the dark one, which is the default."""

_COLOURS = {
    "body_text_color": "text",
    "body_text_color_subdued": "dim",
    "background_fill_primary": "panel",
    "background_fill_secondary": "bg",
    "border_color_primary": "line",
    "border_color_accent": "accent",
    "block_background_fill": "raise",
    "block_border_color": "line",
    "block_label_background_fill": "raise",
    "block_label_text_color": "dim",
    "block_title_text_color": "dim",
    "block_info_text_color": "dim",
    "panel_background_fill": "panel",
    "panel_border_color": "line",
    "input_background_fill": "raise",
    "input_background_fill_focus": "raise",
    "input_border_color": "line",
    "input_border_color_focus": "accent",
    "input_border_color_hover": "line-strong",
    "input_placeholder_color": "faint",
    "slider_color": "accent",
    "color_accent": "accent",
    "color_accent_soft": "accent-soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent",
    "link_text_color_active": "accent",
    "link_text_color_visited": "accent",
    "checkbox_background_color": "bg",
    "checkbox_background_color_selected": "go",
    "checkbox_border_color": "check",
    "checkbox_border_color_selected": "go",
    "checkbox_label_background_fill": "raise",
    "checkbox_label_background_fill_hover": "hover",
    "checkbox_label_text_color": "text",
    "button_primary_background_fill": "go",
    "button_primary_background_fill_hover": "go-hover",
    "button_primary_text_color": "on-go",
    "button_primary_border_color": "go",
    "button_secondary_background_fill": "raise",
    "button_secondary_background_fill_hover": "hover",
    "button_secondary_text_color": "text",
    "button_secondary_border_color": "line",
}
_MEASURES = {
    "block_border_width": "1px",
    "block_label_text_size": "11px",
    "block_title_text_size": "11px",
    "block_title_text_weight": "400",
    "block_padding": "6px 10px",
    "block_radius": "8px",
    "container_radius": "8px",
    "input_radius": "8px",
    "input_text_size": "13px",
    "input_padding": "0",
    "input_border_width": "0px",
    "input_shadow": "none",
    "input_shadow_focus": "none",
    "block_shadow": "none",
    "button_border_width": "1px",
    "button_large_radius": "8px",
    "button_small_radius": "8px",
    "button_large_text_size": "13px",
    "button_small_text_size": "12px",
    "button_large_text_weight": "500",
    "button_primary_shadow": "none",
    "button_secondary_shadow": "none",
    "layout_gap": "10px",
    "form_gap_width": "0px",
    "section_header_text_size": "13px",
}


def make_theme() -> gr.themes.Base:
    """The page's theme. Its fonts come with Gradio (SIL Open Font License), nothing is fetched from elsewhere."""
    theme = gr.themes.Base(
        text_size=gr.themes.sizes.text_sm,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_md,
        font=[gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono", weights=(400,)), "ui-monospace", "monospace"],
    )
    values: dict[str, Any] = {"body_background_fill": FIRST_PAINT, "body_background_fill_dark": FIRST_PAINT}
    for name, colour in _COLOURS.items():
        values[name] = f"var(--ls-{colour})"
        if hasattr(theme, f"{name}_dark"):
            values[f"{name}_dark"] = f"var(--ls-{colour})"
    for name, measure in _MEASURES.items():
        values[name] = measure
        if hasattr(theme, f"{name}_dark"):
            values[f"{name}_dark"] = measure
    return theme.set(**values)


def make_head(config: dict[str, Any]) -> str:
    """Stylesheets, the few lines that must run before the first paint, and the page's script.

    `config` reaches the script as `window.latentStudioConfig`. All modules are named, as a browser that finds them one
    by one inside each other waits for Gradio's drawing in between.
    """
    boot, url = (ASSETS / "boot.js").read_text("utf-8"), assets_url()
    modules = sorted(file.name for file in ASSETS.glob("*.js") if file.name not in ("boot.js", "main.js"))
    preloads = "".join(f'<link rel="modulepreload" href="{url}/{name}">\n' for name in modules)
    return (
        f'<link rel="stylesheet" href="{url}/page.css">\n'
        f'<link rel="stylesheet" href="{url}/train.css">\n'
        f"<script>window.latentStudioConfig = {inline_json(config)};\n{boot}</script>\n"
        f'<script type="module" src="{url}/main.js"></script>\n{preloads}'
    )
