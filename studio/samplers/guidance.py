"""When the negative prompt is computed: guidance by it, and the model calls that leave it out to save time. AUTOMATIC1111's rules.

A call that leaves it out takes the prediction of the first prompt in its place, so a single prompt is followed without guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.samplers.table import SamplerSpec
from studio.schema.parts import SamplerOptions


@dataclass(frozen=True)
class NegativeSkip:
    """Which model calls of a pass leave the negative prompt out.

    Attributes:
        below: sigma below which every second call does, the odd ones counted from 0; 0 is off.
        every: whether below that sigma all calls do.
        early: the part of `calls` at the beginning that does; 0 is off.
        calls: model calls of the pass, two a step for samplers of second order.
    """

    below: float
    every: bool
    early: float
    calls: int

    @classmethod
    def of(cls, options: SamplerOptions, sampler: SamplerSpec, steps: int) -> NegativeSkip:
        """The rule of a pass of `steps` steps."""
        calls = steps * 2 if sampler.second_order else steps
        return cls(options.s_min_uncond, options.s_min_uncond_all, options.skip_early_cond, calls)

    def skips(self, call: int, level: float) -> bool:
        """Whether call `call`, counted from 0, does. `level` is its sigma; its timestep for the CompVis samplers, as in A1111."""
        if self.early and call / self.calls <= self.early:
            return True
        return level < self.below and (self.every or call % 2 == 1)


def needs_negative(scales: Sequence[float]) -> bool:
    """Whether the negative prompt has any effect where prompts are guided to with `scales`: not with one at 1, which halves the time."""
    return list(scales) != [1.0]


def is_guided(sampler: SamplerSpec, cfg_scale: float, weights: Sequence[float]) -> bool:
    """Whether a pass computes the negative prompt at all; `weights` are those of the prompts put together with AND."""
    return sampler.needs_uncond or needs_negative([cfg_scale * sampler.guidance_factor * weight for weight in weights])
