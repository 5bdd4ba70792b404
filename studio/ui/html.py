"""The only place where HTML is made on the server. Everything else is text.

The page's own script builds its elements with `textContent`, so a prompt, a file name or a PNG's text can never become
markup. What little markup the server sends passes through `esc`.
"""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr


def esc(text: object) -> str:
    """`text` as it can stand between tags and inside quoted attributes."""
    return html.escape(str(text), quote=True)


def inline_json(value: Any) -> str:
    """JSON that can stand inside a script element: it cannot close the element, nor open a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def panel(name: str, *, elem_id: str | None = None, scale: int | None = None) -> gr.HTML:
    """An empty place on the page that the script fills: `assets/main.js` knows what belongs into `name`."""
    return gr.HTML(
        f'<div class="ls-panel" data-panel="{esc(name)}"></div>',
        elem_id=elem_id or f"panel_{name}",
        elem_classes=["ls-host"],
        scale=scale,
        js_on_load=None,
        apply_default_css=False,
    )
