"""Resolved requests for the tests of this folder."""

from __future__ import annotations

from typing import Any

from studio.schema.models import ModelInfo
from studio.schema.parts import SamplerOptions
from studio.schema.request import RunOptions
from studio.schema.resolved import ResolvedRequest
from tests.plans import prompt_plan

NO_MODEL = ModelInfo(
    kind="checkpoint",
    name="nothing",
    path="/nowhere/nothing.safetensors",
    layout="file",
    family="sd1",
    size=0,
    mtime=0.0,
)


def resolved_request(model: ModelInfo = NO_MODEL, **changes: Any) -> ResolvedRequest:
    """A small request; `changes` are fields of `ResolvedRequest`, or `prompt`, `negative_prompt`, `seed`, `preview_every`."""
    prompt, negative = changes.pop("prompt", "a red fox"), changes.pop("negative_prompt", "")
    seed, preview_every = changes.pop("seed", 7), changes.pop("preview_every", 1)
    values: dict[str, Any] = {
        "positive": prompt_plan(prompt),
        "negative": prompt_plan(negative),
        "loras": (),
        "model": model,
        "vae": None,
        "sampler": "Euler",
        "schedule": "Uniform",
        "schedule_label": "Automatic",
        "sampler_options": SamplerOptions(),
        "steps": 4,
        "cfg_scale": 7.0,
        "width": 64,
        "height": 64,
        "batch_size": 1,
        "batch_count": 1,
        "clip_skip": 1,
        "emphasis": "Original",
        "rng": "CPU",
        "options": RunOptions(preview_every=preview_every),
        **changes,
    }
    count = values["batch_size"] * values["batch_count"]
    return ResolvedRequest(seeds=tuple(range(seed, seed + count)), **values)
