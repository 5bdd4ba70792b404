"""How listeners are made, in one place, so that none becomes a public endpoint or rides on Gradio's queue.

`listen` calls Python, `listen_js` only the page's script. Values arrive as the browser sent them (no Gradio
preprocessing): bounds and names are checked once, by the request model, with messages a person can read. An error
becomes an outcome that the script shows; Gradio's own messages, which are HTML, never see it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from studio.errors import EngineError, StudioError
from studio.ui.looks import in_words_of_the_form

log = logging.getLogger(__name__)


def script(method: str, *leading: str) -> str:
    """JavaScript that calls `method` of the page's script once it is there. `leading` are JavaScript expressions."""
    before = "".join(f"{expression}, " for expression in leading)
    return f"async (...values) => (await window.latentStudio).{method}({before}...values)"


def listen(
    trigger: Any,
    handler: Callable[..., Any],
    inputs: set[Component] | Sequence[Component] | None,
    outputs: Sequence[Component],
    *,
    outcome: Component,
    js: str | None = None,
    always_last: bool = False,
    told: str = script("outcome"),
    more: Sequence[Component] = (),
) -> Dependency:
    """Run `handler` when `trigger` fires, then hand what it left in `outcome` to the script; `told` gets it, and the values of `more`."""

    def safely(*values: Any) -> Any:
        try:
            return handler(*values)
        except StudioError as error:
            return {outcome: {"error": in_words_of_the_form(error)}}
        except Exception:
            log.exception("a handler of the page failed")
            return {outcome: {"error": EngineError("Something broke in the server; its log says what.").to_dict()}}

    done = trigger(
        safely,
        inputs=inputs,
        outputs=list(outputs),
        js=js,
        preprocess=False,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last" if always_last else "multiple",
    )
    return done.then(
        None,
        inputs=[outcome, *more],
        outputs=None,
        js=told,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def listen_js(
    triggers: Any, js: str, inputs: Sequence[Component] = (), outputs: Sequence[Component] = ()
) -> Dependency:
    """Run `js` in the browser when one of `triggers` fires; the server hears nothing of it."""
    return gr.on(
        triggers,
        None,
        inputs=list(inputs),
        outputs=list(outputs),
        js=js,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="multiple",
    )
