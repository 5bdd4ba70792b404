"""The refiner: a second checkpoint that takes the latents over on the way and finishes them.

Which model call is the first of the refiner is AUTOMATIC1111's rule (1.8 and later). It is asked before every call, so the two
calls of one step of a second-order sampler may be of different models. Once it has begun, the refiner stays, also where a
sampler goes back up to higher noise (Restart).

    by noise level:   (T - 1 - t) / T >= switch_at     t: the entry of the first checkpoint's table nearest to the call's sigma
    by steps:         call / calls    >= switch_at     calls: as prompt editing counts them, two a step for second order
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from studio.engine.denoise import GuidedUNet
from studio.errors import IncompatibleFile
from studio.samplers.noise_table import NoiseTable
from studio.schema.models import ModelInfo
from studio.schema.resolved import RefinerPlan, ResolvedRequest
from studio.upscalers import ON_PIXELS, on_latents

if TYPE_CHECKING:
    from studio.engine.loaded import LoadedCheckpoint
    from studio.engine.loading import LatentFacts, LoadedModel
    from studio.engine.passes import DenoisingPass

OTHER_UPSCALERS = f"Choose an upscaler that enlarges the picture instead: {', '.join(ON_PIXELS)}, or a model."
"""What helps where the checkpoint of a second pass cannot read the latents of the first."""


class RefinerPass:
    """The refiner's part of a job.

    Args:
        plan: when it takes over.
        open_pass: makes the pass of the refiner's checkpoint; may load it, and put the first checkpoint away. Called at the
            switch of every batch, outside of inference mode, so that what it loads can be changed later.
    """

    def __init__(self, plan: RefinerPlan, open_pass: Callable[[], tuple[LoadedCheckpoint, DenoisingPass]]) -> None:
        self._plan = plan
        self._open = open_pass
        self.painter: LoadedCheckpoint | None = None
        """The refiner while it paints; None before the switch."""

    def after(self, first: GuidedUNet, table: NoiseTable, steps: int, calls: int = 0) -> HandOver:
        """The denoiser of one batch of `steps` steps, that begins with `first` after `calls` model calls; `table` is that of the first checkpoint."""
        self.painter = None
        take_over = partial(self._take_over, steps=steps)
        return HandOver(first, lambda call, sigma: self._is_due(call, sigma, table), take_over, calls)

    def _is_due(self, call: int, sigma: float, table: NoiseTable) -> bool:
        if self._plan.from_call is not None:
            return call >= self._plan.from_call
        return gone(sigma, table) >= self._plan.switch_at

    def _take_over(self, calls: int, steps: int) -> GuidedUNet:
        with torch.inference_mode(False):
            self.painter, painting = self._open()
        return painting.denoiser(calls, steps)


class HandOver:
    """A `GuidedDenoiser` of two models: `first`, until `is_due(call, sigma)`; then what `take_over(calls made)` gives.

    The first is let go of before the second is asked for, so that its memory can be given back.
    """

    def __init__(
        self,
        first: GuidedUNet,
        is_due: Callable[[int, float], bool],
        take_over: Callable[[int], GuidedUNet],
        calls: int = 0,
    ) -> None:
        self._first: GuidedUNet | None = first
        self._second: GuidedUNet | None = None
        self._is_due = is_due
        self._take_over = take_over
        self._calls = calls

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """See `GuidedUNet`."""
        return self._turn(sigma)(x, sigma)

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """See `GuidedUNet`."""
        return self._turn(sigma).guided_and_uncond(x, sigma)

    def _turn(self, sigma: float) -> GuidedUNet:
        """Whose call this is."""
        call, self._calls = self._calls, self._calls + 1
        if self._first is not None:
            if not self._is_due(call, sigma):
                return self._first
            self._first = None
        if self._second is None:
            self._second = self._take_over(call)
        return self._second


def gone(sigma: float, table: NoiseTable) -> float:
    """How much of the way through the timesteps of `table` lies behind at `sigma`: 0 at the first, almost 1 at the last."""
    nearest = int((table.sigmas - sigma).abs().argmin())
    return (len(table) - 1 - nearest) / len(table)


def check_latents(one: LatentFacts, second: LoadedModel, field: str = "refiner.checkpoint", instead: str = "") -> None:
    """Raise `IncompatibleFile` unless the latents of the first model, `one`, mean the same to the second.

    `field` is what names the second in a request; `instead` a sentence about what could be done.
    """
    other = second.latent
    facts = [(latent.channels, latent.scale, latent.scaling_factor, latent.shift_factor) for latent in (one, other)]
    if facts[0] != facts[1]:
        raise IncompatibleFile(
            f"{second.info.name} cannot finish what the checkpoint began: its latents have {other.channels} channels at "
            f"1/{other.scale} of the size, scaled by {other.scaling_factor:g}; the first one's have {one.channels} at "
            f"1/{one.scale}, scaled by {one.scaling_factor:g}. {instead}".rstrip(),
            field=field,
        )


def check_job(resolved: ResolvedRequest, held: Callable[[ModelInfo], LoadedCheckpoint | None]) -> None:
    """Raise `IncompatibleFile` where latents would go from one checkpoint to another that they mean nothing to; of those that `held` gives."""

    def check(first: ModelInfo, second: ModelInfo, *told: str) -> None:
        one, other = held(first), held(second)
        if one and other:
            check_latents(one.model.latent, other.model, *told)

    plan = resolved.hires
    for part in (resolved, plan) if plan and plan.denoising_strength else (resolved,):
        if part.refiner:
            check(part.model, part.refiner.model)
    if plan and plan.denoising_strength and on_latents(plan.upscaler):
        check(resolved.model, plan.model, "hires.checkpoint", OTHER_UPSCALERS)
