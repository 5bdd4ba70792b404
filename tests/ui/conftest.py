"""A studio over a `FakeEngine`, not started, and the page's form for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from studio.app import Studio
from studio.ui.form import Form
from studio.ui.handlers import Handlers
from studio.ui.looks import LOOKS
from tests.api.stand_in import make_studio


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = make_studio(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def form() -> Form:
    made = Form()
    for name in LOOKS:
        made.place(name)
    return made


@pytest.fixture
def handlers(studio: Studio, form: Form) -> Handlers:
    return Handlers(studio, form, outcome=gr.JSON(), parcel=gr.Textbox())
