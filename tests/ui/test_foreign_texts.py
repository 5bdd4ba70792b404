"""Every text of the vectors, from whatever program, loads in the page: the form takes it, and what it shows can be asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.app import Studio
from studio.schema.request import GenerationRequest
from studio.ui.handlers import Handlers
from tests.vector_files import load_json

VECTORS = load_json("infotext.json")
TEXTS = [*VECTORS["texts"], *VECTORS["create"]]


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: repr(case["text"])[:60])
def test_vectors_load_in_the_form(case: dict[str, Any], handlers: Handlers, studio: Studio) -> None:
    parsed = studio.read_infotext(case["text"])
    parcel = json.dumps({"request": parsed.request, "notes": list(parsed.notes), "whole": True})
    updates = handlers.fill({handlers.parcel: parcel})
    outcome = updates.pop(handlers.outcome)
    assert "error" not in outcome
    fresh = handlers.form.fill(GenerationRequest().model_dump())
    shown = {component: update["value"] for component, update in (fresh | updates).items()}
    asked = handlers.form.read(shown)
    assert asked.prompt.startswith(parsed.request.get("prompt", ""))
    assert asked.negative_prompt == parsed.request.get("negative_prompt", "")
    left_out = " ".join(outcome["notes"])
    for name in ("steps", "seed", "cfg_scale", "width", "height", "sampler", "schedule", "clip_skip", "rng"):
        assert name not in parsed.request or getattr(asked, name) == parsed.request[name]
    for name in ("model", "vae"):
        there = name not in parsed.request or parsed.request[name] in (getattr(asked, name), "Automatic")
        assert there or str(parsed.request[name]).partition(" [")[0] in left_out
