"""The Settings tab: one component for every setting that may be changed over HTTP, in its group, stored on change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from studio.settings import Settings
from studio.ui.fields import Choices, control, read_field
from studio.ui.form import model_choices, sampler_choices, schedule_choices, vae_choices
from studio.ui.handlers import Updates, is_http
from studio.ui.html import panel
from studio.ui.wiring import listen

if TYPE_CHECKING:
    from studio.app import Studio


def build_settings(studio: Studio, outcome: Component, change: Callable[[str, Any], Updates]) -> dict[str, Component]:
    """Lay the tab out and wire it to `change(name, value)`. Returns the components by setting name."""
    components: dict[str, Component] = {}
    with gr.Row(elem_classes=["ls-settings"]):
        with gr.Column(scale=6, min_width=320):
            for group, names in grouped().items():
                with gr.Column(elem_classes=["ls-card", "ls-setting-group"]):
                    gr.Markdown(f"### {group}", elem_classes=["ls-heading"])
                    for name in names:
                        components[name] = _setting(studio, name)
        with gr.Column(scale=4, min_width=280):
            panel("facts")
    for name, component in components.items():
        for trigger in _triggers(component):
            listen(trigger, partial(change, name), [component], [outcome], outcome=outcome, always_last=True)
    return components


def grouped() -> dict[str, list[str]]:
    """The settings of the page by group, both in the order in which they are declared."""
    groups: dict[str, list[str]] = {}
    for name, info in Settings.model_fields.items():
        extra = info.json_schema_extra
        if is_http(extra) and isinstance(extra, dict):
            groups.setdefault(str(extra.get("group", "Other")), []).append(name)
    return groups


def setting_choices(studio: Studio) -> dict[str, Choices]:
    """Settings whose values come from a list that the program knows."""
    return {
        "sd_model_checkpoint": [("First one found", ""), *model_choices(studio.library.checkpoints())],
        "sd_vae": vae_choices(studio.library.vaes()),
        "default_sampler": sampler_choices(),
        "default_schedule": schedule_choices(),
    }


def _setting(studio: Studio, name: str) -> Component:
    """The component of one setting. Its help text is its label: settings are few and read rarely."""
    choices = setting_choices(studio).get(name)
    layout: dict[str, Any] = {"value": getattr(studio.settings, name), "info": None}
    if choices is not None:
        layout["allow_custom_value"] = True  # a setting may name a model that is not there at the moment
    words = read_field(Settings, name).help
    return control(Settings, name, label=words, elem_id=f"setting_page_{name}", choices=choices, **layout)


def _triggers(component: Component) -> list[Any]:
    """When the user has finished changing it: typed values when the field is left, chosen ones at once."""
    if isinstance(component, (gr.Number, gr.Textbox)):
        return [component.blur, component.submit]
    if isinstance(component, gr.Slider):
        return [component.release]
    return [component.input]
