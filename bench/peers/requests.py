"""The comparison's models as a library, and its jobs as requests. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench._models import OneModel, find_model
from bench.peers.workloads import CHECKPOINTS, GUIDANCE, LORA_FILES, SPROUT, Job
from studio.library.scan import describe, find_models
from studio.resolve import resolve
from studio.schema.models import ModelInfo, ModelKind
from studio.schema.request import GenerationRequest
from studio.schema.resolved import ResolvedRequest

ENGINE: dict[str, Any] = {"device": "cpu", "attention": "auto", "precision": "auto"}
"""What a user gets who chooses nothing."""


class Models(OneModel):
    """A library of the comparison's models."""

    def __init__(self, root: Path) -> None:
        self._checkpoints = _found(root / CHECKPOINTS, "checkpoint")
        self._loras = _found(root / LORA_FILES, "lora")

    def checkpoint(self, name: str | None) -> ModelInfo:
        """By its name."""
        if name == SPROUT and name not in self._checkpoints:  # an installation without it can measure the others
            self._checkpoints[name] = find_model(name)
        return self._checkpoints[name or ""]

    def lora(self, name: str) -> ModelInfo:
        """By its name."""
        return self._loras[name]


def _found(folder: Path, kind: ModelKind) -> dict[str, ModelInfo]:
    if not folder.is_dir():
        return {}
    models = [describe(found, kind)[0] for found in find_models(folder)]
    return {model.name: model for model in models}


def asked(job: Job, models: Models) -> ResolvedRequest:
    """What a user would ask for, resolved."""
    request = GenerationRequest(
        prompt=job.prompt + (f" <lora:{job.lora}:1>" if job.lora else ""), negative_prompt=job.negative, model=job.model,
        sampler="Euler", schedule="Uniform", steps=job.steps, cfg_scale=GUIDANCE, seed=job.seed, width=job.side, height=job.side,
        batch_size=job.batch_size, batch_count=job.batch_count,
    )  # fmt: skip
    return resolve(request, models, lambda: job.seed)
