"""What samplers take and give. Nothing here imports torch at run time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One finished step of a sampler.

    Attributes:
        index: 0 for the first step.
        sigma: noise level that the step started from.
        sigma_next: noise level that it ended at; that of `x`.
        x: latents after the step, [B, C, h, w], in sigma space: x = x0 + sigma·n with n of unit variance. After the last
            step this is the result to decode, whatever the algorithm has left in it.
        denoised: the x0 predicted at the step's start, same shape; what a preview shows.
    """

    index: int
    sigma: float
    sigma_next: float
    x: Tensor
    denoised: Tensor


@dataclass(frozen=True)
class Knobs:
    """What the algorithms read of a request's sampler options, with every default filled in.

    Attributes:
        eta: noise multiplier; 0 makes the sampler deterministic.
        s_churn: S_churn of Karras et al. 2022, for the samplers that have it; 0 is off.
        s_tmin: churn only from this level up.
        s_tmax: churn only up to this level.
        s_noise: scale of all noise that is added on the way.
        uni_pc_variant: the function B(h) of UniPC ("bh1", "bh2"), or its varying coefficients.
        uni_pc_order: highest order of UniPC, ≥ 1.
        uni_pc_lower_order_final: let the order of UniPC fall to 1 towards the end.
    """

    eta: float = 0.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    uni_pc_order: int = 3
    uni_pc_lower_order_final: bool = True


class Denoiser(Protocol):
    """The model as samplers see it: noisy latents in, predicted clean latents out, guidance included."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Predict x0 from `x` [B, C, h, w] = x0 + sigma·n; gives the same shape and dtype."""
        ...


@runtime_checkable
class GuidedDenoiser(Denoiser, Protocol):
    """A denoiser that can also tell what it predicts without the prompt (DDIM CFG++ needs it)."""

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The pair of what `__call__` gives and the x0 of the negative (unconditional) prompt."""
        ...


class StepNoise(Protocol):
    """Fresh unit-variance noise for the step from `sigma` to `sigma_next`.

    Most sources ignore the two levels and give the next draw. A Brownian path gives its normalised increment between them,
    so that the same seed follows the same path however many steps are taken.
    """

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """Noise of the shape of the latents."""
        ...


class NoiseSource(Protocol):
    """Where a run's noise comes from after the start noise; `ImageNoise` is the one in use."""

    def draw(self) -> Tensor:
        """The next tensor from each image's generator, stacked: [B, C, h, w]."""
        ...

    def brownian(self, sigma_min: float, sigma_max: float) -> StepNoise:
        """One Brownian path per image over [`sigma_min`, `sigma_max`]."""
        ...
