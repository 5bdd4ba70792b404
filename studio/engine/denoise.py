"""The model as samplers see it: a denoiser in σ-space around diffusers' U-Net, with classifier-free guidance.

Samplers work on x = x0 + σ·n with n of unit variance. The U-Net was trained on x / sqrt(σ² + 1) at a timestep t and
predicts the noise ε, or v = (n - σ·x0) / sqrt(σ² + 1):

    ε:  x0 = x - σ·ε                                            (Ho et al. 2020, https://arxiv.org/abs/2006.11239)
    v:  x0 = x / (σ² + 1) - σ / sqrt(σ² + 1) · v                 (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512)

Guidance: out = out_negative + scale · (out_positive - out_negative)  (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.schema.models import PredictionType


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told about one prompt: `states` [1, T, D], and SDXL's `added` tensors [1, ...]."""

    states: Tensor
    added: dict[str, Tensor] | None = None


class UNet(Protocol):
    """The part of diffusers' `UNet2DConditionModel` that is used here."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor] | None,
        return_dict: bool,
    ) -> Any:
        """Predict noise or v."""
        ...


class GuidedUNet:
    """Denoiser of one batch: `(x, sigma) -> x0`, guidance included.

    Args:
        unet: noise or v predictor.
        timestep: σ to the (fractional) timestep that the U-Net is given.
        prediction_type: what the U-Net predicts.
        positive, negative: conditions, the same for every picture of the batch. `negative` may be None when `scale` is 1.
        scale: guidance scale. At 1 the negative prompt has no effect and is not computed, which halves the time.
        dtype: number format of the U-Net; `x` and x0 stay float32.
        concat: extra input channels [1, K, h, w] for inpainting checkpoints.

    Conditions of equal length go through the U-Net in one forward pass, others in two.
    """

    def __init__(
        self,
        unet: UNet,
        timestep: Callable[[float], float],
        prediction_type: PredictionType,
        positive: Condition,
        negative: Condition | None,
        scale: float,
        dtype: torch.dtype,
        concat: Tensor | None = None,
    ) -> None:
        self._unet = unet
        self._timestep = timestep
        self._predicts_v = prediction_type == "v_prediction"
        self._positive = positive
        self._negative = negative
        self._scale = scale
        self._dtype = dtype
        self._concat = concat
        self._expanded: dict[tuple[int, ...], Condition] = {}

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided prediction of x0 for `x` [B, C, h, w]."""
        if self._negative is None or self._scale == 1:
            return self._to_x0(x, sigma, self._forward(x, sigma, self._positive))
        positive, negative = self._both(x, sigma, self._negative)
        return self._to_x0(x, sigma, torch.lerp(negative, positive, self._scale))

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided x0 and that of the negative prompt alone. Needs a negative condition."""
        if self._negative is None:
            raise ValueError("guided_and_uncond needs a negative condition")
        positive, negative = self._both(x, sigma, self._negative)
        guided = torch.lerp(negative, positive, self._scale)
        return self._to_x0(x, sigma, guided), self._to_x0(x, sigma, negative)

    def _both(self, x: Tensor, sigma: float, negative: Condition) -> tuple[Tensor, Tensor]:
        if self._positive.states.shape != negative.states.shape:
            return self._forward(x, sigma, self._positive), self._forward(x, sigma, negative)
        both = self._forward(torch.cat((x, x)), sigma, self._positive, negative)
        positive_out, negative_out = both.chunk(2)
        return positive_out, negative_out

    def _forward(self, x: Tensor, sigma: float, *conditions: Condition) -> Tensor:
        """One U-Net pass over `x`, whose rows belong to `conditions` in equal shares."""
        condition = self._expand(conditions, len(x))
        scaled = x * (sigma * sigma + 1) ** -0.5
        if self._concat is not None:
            scaled = torch.cat((scaled, self._concat.to(scaled).expand(len(x), -1, -1, -1)), dim=1)
        timesteps = torch.full((len(x),), self._timestep(sigma), device=x.device, dtype=torch.float32)
        out: Tensor = self._unet(
            scaled.to(self._dtype), timesteps, condition.states, added_cond_kwargs=condition.added, return_dict=False
        )[0]
        return out.to(x.dtype)

    def _expand(self, conditions: tuple[Condition, ...], rows: int) -> Condition:
        """The conditions repeated for `rows` rows, in the U-Net's format; the same at every step, so kept."""
        key = (rows, *(id(condition) for condition in conditions))
        if key not in self._expanded:
            share = rows // len(conditions)

            def spread(tensors: list[Tensor]) -> Tensor:
                return torch.cat([t.expand(share, *t.shape[1:]) for t in tensors])

            names = conditions[0].added or {}
            added = {name: spread([c.added[name] for c in conditions if c.added]) for name in names}
            states = spread([c.states for c in conditions]).to(self._dtype)
            self._expanded[key] = Condition(states, added or None)
        return self._expanded[key]

    def _to_x0(self, x: Tensor, sigma: float, out: Tensor) -> Tensor:
        if not self._predicts_v:
            return torch.sub(x, out, alpha=sigma)
        variance = sigma * sigma + 1
        return torch.sub(x / variance, out, alpha=sigma * variance**-0.5)
