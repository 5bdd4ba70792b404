"""The whole measurement of one model: paint, judge, compare with true drawings, time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL

from bench.scenes.effects import editing_effect, guidance_effect, negative_effect, size_effect, weight_effect
from bench.scenes.figures import judged, shares, table
from bench.scenes.painter import FEW_SCHEDULE, FEW_STEPS, SAMPLER, Painter, seconds_each
from bench.scenes.prompts import COUNT, EVALUATION_SEED, Prompt, held_out_prompts, true_drawings
from studio.schema.engine import Engine
from studio.schema.models import ModelInfo
from studio.training.methods.judge.judge import Judge, Picture
from studio.training.methods.scratch.autoencoder import reconstruction_psnr


@dataclass(frozen=True)
class Amounts:
    """How much is painted and timed."""

    prompts: int = COUNT
    compared_prompts: int = 48
    weighted_kinds: int = 24
    timed: int = 8
    vae_drawings: int = 128


QUICK = Amounts(prompts=32, compared_prompts=4, weighted_kinds=4, timed=2, vae_drawings=8)


@dataclass(frozen=True)
class Measurement:
    """``result`` as JSON, and the ``pictures`` of ``prompts`` behind its rows."""

    result: dict[str, Any]
    prompts: list[Prompt]
    pictures: list[Picture]


def measure(engines: Sequence[Engine], timed: Engine, model: ModelInfo, judge: Judge, amounts: Amounts) -> Measurement:
    """Everything that the card of ``model``, a diffusers folder, states: painted on ``engines``, timed on ``timed``, alone.

    Raises ``StudioError`` when the engine cannot paint, and ``TrainingError`` when there is no font to draw with.
    """
    prompts = held_out_prompts(amounts.prompts)
    drawings = true_drawings(prompts, model.native_size)
    singles = [prompt for prompt in prompts if prompt.group == "single"]
    painter = Painter(tuple(engines), model)
    hasty = replace(painter, steps=FEW_STEPS, schedule=FEW_SCHEDULE)
    some = singles[: amounts.compared_prompts]
    pictures = paint_all(painter, prompts)
    result = {
        "settings": _settings(painter),
        "prompts": {"count": len(prompts), "seed": EVALUATION_SEED, "groups": _groups(prompts)},
        "rows": table(prompts, judged(judge, prompts, pictures), judged(judge, prompts, drawings)),
        "few_steps": shares(judged(judge, singles, paint_all(hasty, singles)), ("object", "colour", "background")),
        "guidance": guidance_effect(painter, judge, some),
        "sizes": size_effect(painter, judge, some),
        "negative": negative_effect(painter, amounts.weighted_kinds),
        "weight": weight_effect(painter, amounts.weighted_kinds),
        "editing": editing_effect(painter, amounts.weighted_kinds),
        "seconds": {
            str(each.steps): _seconds(replace(each, engines=(timed,)), amounts.timed) for each in (painter, hasty)
        },
        "vae": _autoencoder(Path(model.path), drawings[: amounts.vae_drawings]),
    }
    return Measurement(result, prompts, pictures)


def paint_all(painter: Painter, prompts: Sequence[Prompt]) -> list[Picture]:
    """One picture for each prompt, with the scene's number as seed."""
    return painter.all([prompt.order for prompt in prompts], f"prompts, {painter.steps} steps")


def _settings(painter: Painter) -> dict[str, Any]:
    return {
        "sampler": SAMPLER,
        "schedule": painter.schedule,
        "steps": painter.steps,
        "few_steps": FEW_STEPS,
        "few_schedule": FEW_SCHEDULE,
        "cfg": painter.cfg,
        "side": painter.model.native_size,
    }


def _groups(prompts: Sequence[Prompt]) -> dict[str, int]:
    names = [prompt.group for prompt in prompts]
    return {name: names.count(name) for name in sorted(set(names))}


def _seconds(painter: Painter, count: int) -> dict[str, Any]:
    """Seconds of single pictures, of prompts that the engine has not encoded before."""
    seconds = seconds_each(painter, [f"a red fox on a beach, number {number}" for number in range(count)])
    spread = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {"pictures": count, **{name: round(value, 3) for name, value in spread.items()}}


def _autoencoder(model: Path, drawings: Sequence[Picture]) -> dict[str, Any]:
    vae = AutoencoderKL.from_pretrained(model / "vae", local_files_only=True).eval()
    return {"pictures": len(drawings), "psnr_db": round(reconstruction_psnr(vae, np.stack(drawings)), 2)}
