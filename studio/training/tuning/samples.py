"""Pictures painted while training, by the product's own sampling, always with the same prompts and seeds.

They are PNG files in the run's `samples/`, named by step and prompt, with the infotext of a finished picture and where they come from.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from studio import __version__
from studio.engine.conditioning import Conditioner
from studio.engine.decode import Decoder
from studio.engine.loading import LoadedVae
from studio.engine.passes import DenoisingPass
from studio.engine.saving import Saving
from studio.infotext import encode_png, write_infotext
from studio.paths import atomic_write
from studio.prompt.tokenizer import shipped_tokenizer
from studio.prompt.weights import parse_weights
from studio.samplers.table import find_sampler, find_schedule, resolve_schedule
from studio.schema.parts import SamplerOptions
from studio.schema.resolved import PromptBranch, PromptPlan, ResolvedRequest
from studio.schema.training_tuning import TuningMethod
from studio.training.context import TrainingContext
from studio.training.runs import RunFolder, SamplePainted
from studio.training.tuning.base import Base


class Painter:
    """Paints the samples of a run with whatever weights the U-Net has.

    Encoded prompts are kept, so that the text encoders may be given back; where those learn (`encoders_learn`) prompts are encoded
    at every round. Raises `UnknownName` and `InvalidRequest` for a sampler, schedule or number of steps that is not possible.
    """

    def __init__(self, context: TrainingContext, method: TuningMethod, base: Base, *, encoders_learn: bool) -> None:
        self._context = context
        self._base = base
        self._requests = [_request(method, base, index) for index in range(len(method.samples.prompts))]
        passes = self._passes()
        self._kept = None if encoders_learn else passes

    @torch.no_grad()
    def paint(self, step: int) -> None:
        """One picture for each prompt, and an event for each; pictures that are there already are painted again."""
        vae = self._base.model.vae.to(self._context.device)
        decoder = Decoder(LoadedVae(vae, self._base.model.latent))
        for index, (request, painted) in enumerate(zip(self._requests, self._kept or self._passes(), strict=True)):
            *_, last = painted.steps(request.seeds)
            picture = decoder.picture(last.x[0])
            text = write_infotext(request, 0, __version__, self._base.hardware.backend)
            text += f", Training run: {self._context.run.id}, Training step: {step}"
            file = sample_file(self._context.run, step, index)
            atomic_write(file, encode_png(picture, text))
            event = SamplePainted(
                time=time.time(), step=step, index=index, file=file.relative_to(self._context.run.path).as_posix()
            )
            self._context.run.append(event)
        self.rest()

    def rest(self) -> None:
        """Put the autoencoder where it takes no room on the device."""
        if self._context.device.type != "cpu":
            self._base.model.vae.to("cpu")
            self._base.hardware.free()

    def _passes(self) -> list[DenoisingPass]:
        self._base.loaded.conditioner = Conditioner(
            self._base.model, shipped_tokenizer()
        )  # without memory of older weights
        return [DenoisingPass(self._base.loaded, request, self._base.hardware, Saving()) for request in self._requests]


def sample_file(run: RunFolder, step: int, index: int) -> Path:
    """Where the picture of prompt `index` after `step` steps is."""
    return run.samples / f"step-{step:08d}-{index:02d}.png"


def _request(method: TuningMethod, base: Base, index: int) -> ResolvedRequest:
    """What is painted for prompt `index`, as if somebody had asked for it."""
    part, side = method.samples, method.data.resolution
    sampler = find_sampler(part.sampler)
    asked = find_schedule(part.schedule)
    running = resolve_schedule(sampler, asked)
    return ResolvedRequest(
        positive=_prompt(part.prompts[index]),
        negative=_prompt(part.negative_prompt),
        loras=(),
        model=base.info,
        vae=None,
        sampler=sampler.name,
        schedule=running.label,
        schedule_label=running.label if sampler.default_schedule else asked.label,
        sampler_options=SamplerOptions(),
        steps=part.steps,
        cfg_scale=part.cfg_scale,
        width=side,
        height=side,
        batch_size=1,
        batch_count=1,
        seeds=((part.seed + index) % 2**32,),
        clip_skip=1,
        emphasis="Original",
        rng="CPU",
    )


def _prompt(text: str) -> PromptPlan:
    return PromptPlan(text=text, branches=(PromptBranch(texts=(tuple(parse_weights(text)),)),))
