"""Components derive from fields: no bound, default or help text stands twice."""

from __future__ import annotations

import gradio as gr
import pytest
from pydantic import BaseModel, Field

from studio.schema.parts import MAX_SEED, SamplerOptions
from studio.schema.request import GenerationRequest
from studio.settings import Settings
from studio.ui.fields import control, read_field, shown_number, typed_number
from studio.ui.form import Form
from studio.ui.looks import LOOKS

TYPED: list[tuple[str, float | str | None]] = [
    ("", None),
    (" \t", None),
    ("0", 0),
    (" 0.5 ", 0.5),
    ("0,5", 0.5),
    (",5", 0.5),
    (".5", 0.5),
    ("1.", 1),
    ("-2", -2),
    ("+1", 1),
    ("0.10", 0.1),
    ("abc", "abc"),
    ("1,000.5", "1,000.5"),
    ("1 2", "1 2"),
    ("0x1", "0x1"),
    ("1e-1", "1e-1"),
    ("nan", "nan"),
    ("Infinity", "Infinity"),
    ("\u0661", "\u0661"),
    ("9" * 400, "9" * 400),
]
"""What is typed into a field that may be empty, and what the request gets; the page's script reads it in the same way."""


class Sample(BaseModel):
    free: float = 1.5
    optional: int | None = Field(None, ge=2)
    set_or_empty: float | None = Field(0.5, ge=0, le=1)
    many: list[int] = []


@pytest.mark.parametrize(
    "model, name, kind, minimum, maximum",
    [
        (GenerationRequest, "steps", "integer", 1, 150),
        (GenerationRequest, "cfg_scale", "decimal", 0, 100),
        (GenerationRequest, "seed", "integer", -1, MAX_SEED),
        (GenerationRequest, "prompt", "text", None, None),
        (GenerationRequest, "model", "text", None, None),
        (GenerationRequest, "rng", "choice", None, None),
        (GenerationRequest, "styles", "names", None, None),
        (SamplerOptions, "eta", "decimal", 0, 1),
        (SamplerOptions, "old_karras", "switch", None, None),
        (Settings, "lora_weight", "decimal", -5, 5),
        (Settings, "theme", "choice", None, None),
        (Sample, "optional", "integer", 2, None),
    ],
)
def test_facts(model: type[BaseModel], name: str, kind: str, minimum: float | None, maximum: float | None) -> None:
    facts = read_field(model, name)
    assert (facts.kind, facts.minimum, facts.maximum) == (kind, minimum, maximum)
    assert facts.help == (model.model_fields[name].description or "")
    assert facts.default == model.model_fields[name].get_default()


def test_a_choice_has_its_values() -> None:
    assert read_field(GenerationRequest, "rng").choices == ("CPU", "GPU", "NV")


def test_what_no_component_can_show_is_refused() -> None:
    with pytest.raises(TypeError, match="many"):
        read_field(Sample, "many")
    with pytest.raises(KeyError):
        read_field(Sample, "nothing")


@pytest.mark.parametrize(
    "model, name, expected",
    [
        (GenerationRequest, "prompt", gr.Textbox),
        (GenerationRequest, "batch_size", gr.Number),
        (GenerationRequest, "emphasis", gr.Dropdown),
        (SamplerOptions, "discard_penultimate", gr.Checkbox),
        (SamplerOptions, "rho", gr.Number),
    ],
)
def test_components(model: type[BaseModel], name: str, expected: type) -> None:
    component = control(model, name, label="Words", elem_id="an_id")
    assert type(component) is expected
    assert component.value == model.model_fields[name].default
    assert (component.label, component.elem_id) == ("Words", "an_id")
    assert component.info == model.model_fields[name].description


def test_a_slider_ends_at_the_fields_bounds_or_earlier() -> None:
    slider = control(GenerationRequest, "width", label="Width", elem_id="w", slider=True, step=8)
    assert (slider.minimum, slider.maximum, slider.step, slider.precision) == (64, 2048, 8, 0)
    soft = control(GenerationRequest, "cfg_scale", label="CFG", elem_id="c", slider=True, soft_maximum=30)
    assert (soft.minimum, soft.maximum) == (0, 30)


def test_a_field_without_bounds_is_no_slider() -> None:
    with pytest.raises(TypeError, match="no bounds"):
        control(Sample, "free", label="Free", elem_id="f", slider=True)


def test_a_list_turns_text_into_a_choice() -> None:
    box = control(GenerationRequest, "sampler", label="Sampler", elem_id="s", choices=["Euler", "Heun"])
    assert [value for _, value in box.choices] == ["Euler", "Heun"]
    assert box.value is None, "the default is not in the list"
    named = control(GenerationRequest, "sampler", label="S", elem_id="s", choices=["Euler"], allow_custom_value=True)
    assert named.value == "DPM++ 2M"
    empty = control(GenerationRequest, "model", label="Model", elem_id="m", choices=[])
    assert isinstance(empty, gr.Dropdown)


def test_several_names_are_one_list() -> None:
    box = control(GenerationRequest, "styles", label="Styles", elem_id="s", choices=["ink", "oil"])
    assert isinstance(box, gr.Dropdown)
    assert box.multiselect
    assert (box.value, [value for _, value in box.choices]) == ([], ["ink", "oil"])


@pytest.mark.parametrize("name, shown", [("optional", ""), ("set_or_empty", "0.5")])
def test_a_number_that_may_be_empty_is_a_text_field(name: str, shown: str) -> None:
    """Gradio's number field takes an empty value for 0 when it is drawn."""
    box = control(Sample, name, label="Optional", elem_id="o", placeholder="automatic")
    assert type(box) is gr.Textbox
    assert (box.value, box.placeholder) == (shown, "automatic")
    assert (box.lines, box.max_lines) == (1, 1), "one line is drawn as an input, which Enter leaves"


def test_a_number_that_may_be_empty_is_no_slider() -> None:
    with pytest.raises(TypeError, match="may be empty"):
        control(Sample, "set_or_empty", label="Set", elem_id="s", slider=True)


def test_no_component_of_the_form_turns_nothing_into_a_number() -> None:
    form = Form()
    for name in LOOKS:
        form.place(name)
    open_ones = {
        name
        for name, component in form.controls.items()
        if isinstance(component, (gr.Number, gr.Slider)) and component.value is None
    }
    assert open_ones == set()


@pytest.mark.parametrize("text, number", TYPED)
def test_a_typed_number(text: str, number: float | str | None) -> None:
    read = typed_number(text)
    assert read == number
    assert type(read) in {type(number), float}


@pytest.mark.parametrize("value", [None, 0.5, 3])
def test_what_is_a_number_already_stays_one(value: float | None) -> None:
    assert typed_number(value) == value


@pytest.mark.parametrize("value, text", [(None, ""), (0.0, "0"), (1.0, "1"), (0.5, "0.5"), (0.1, "0.1"), (7, "7")])
def test_a_number_as_text(value: float | None, text: str) -> None:
    assert shown_number(value) == text
