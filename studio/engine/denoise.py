"""The model as samplers see it: a denoiser in σ-space around diffusers' U-Net, with classifier-free guidance.

Samplers work on x = x0 + σ·n with n of unit variance. The U-Net was trained on x / sqrt(σ² + 1) at a timestep t and
predicts the noise ε, or v = (n - σ·x0) / sqrt(σ² + 1):

    ε:  x0 = x - σ·ε                                            (Ho et al. 2020, https://arxiv.org/abs/2006.11239)
    v:  x0 = x / (σ² + 1) - σ / sqrt(σ² + 1) · v                 (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512)

Guidance: out = out_negative + Σ w_i · scale · (out_i - out_negative)
(Ho & Salimans 2022, https://arxiv.org/abs/2207.12598; several prompts: Liu et al. 2022, https://arxiv.org/abs/2206.01714).
Instructions about a picture: out = out_blind + s_I · (out_seen - out_blind) + Σ w_i · scale · (out_i - out_seen), where seen and blind are the
negative prompt with the picture and without it (Brooks et al. 2022, https://arxiv.org/abs/2211.09800, eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.engine.attention import TextProjections
from studio.prompt.schedule import active_stretch
from studio.samplers.guidance import needs_negative
from studio.schema.models import PredictionType


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told about one prompt: `states` [1, T, D], and SDXL's `added` tensors [1, ...]."""

    states: Tensor
    added: dict[str, Tensor] | None = None
    blind: bool = False
    """Without what the U-Net is told beside the noise: zeros stand there."""


@dataclass(frozen=True)
class Timeline:
    """One prompt over the model calls: `stretches` are (last call, condition) in rising order. `weight` is its share of the guidance."""

    stretches: tuple[tuple[int, Condition], ...]
    weight: float = 1.0

    def at(self, call: int) -> Condition:
        """What holds at model call `call`, counted from 0."""
        return self.stretches[active_stretch([end for end, _ in self.stretches], call)][1]


class UNet(Protocol):
    """The part of diffusers' `UNet2DConditionModel` that is used here."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: dict[str, Tensor] | None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool,
    ) -> Any:
        """Predict noise or v."""
        ...


class GuidedUNet:
    """Denoiser of one run over one batch: `(x, sigma) -> x0`, guidance included. It counts its calls, by which prompts change.

    Args:
        unet: noise or v predictor.
        timestep: σ to the (fractional) timestep that the U-Net is given.
        prediction_type: what the U-Net predicts.
        positive: prompts that are guided to together, one at least; the same for every picture of the batch.
        negative: what is guided away from. May be None when `needs_negative` says so.
        scale: guidance scale.
        dtype: number format of the U-Net; `x` and x0 stay float32.
        concat: extra input channels [1, K, h, w], for checkpoints made for inpainting or instructions.
        image_scale: for instructions, how strictly the picture in `concat` is kept; 1 and None are as any other guidance.
        calls: model calls that are taken as made already, by another model or in another picture, for the prompts.
        before: is told the number of every model call before it is made.
        skip: whether a call, by its number and sigma, leaves the negative prompt out. The prediction of the first prompt then
            stands in its place, and the scale counts as 1.
        split: every condition goes through the U-Net by itself, which takes less memory and more time.
        projections: what the U-Net's attention processors keep of the prompts from call to call.

    Without `split`, conditions of equal length go through the U-Net in one forward pass, others each in its own.
    """

    def __init__(
        self,
        unet: UNet,
        timestep: Callable[[float], float],
        prediction_type: PredictionType,
        positive: Sequence[Timeline],
        negative: Timeline | None,
        scale: float,
        dtype: torch.dtype,
        concat: Tensor | None = None,
        *,
        calls: int = 0,
        before: Callable[[int], None] = lambda call: None,
        skip: Callable[[int, float], bool] = lambda call, sigma: False,
        split: bool = False,
        projections: TextProjections | None = None,
        image_scale: float | None = None,
    ) -> None:
        self._unet = unet
        self._timestep = timestep
        self._predicts_v = prediction_type == "v_prediction"
        self._positive = positive
        self._negative = negative
        self._scales = [scale * prompt.weight for prompt in positive]
        self._skip = skip
        self._call = calls - 1
        self._before = before
        self._dtype = dtype
        self._concat = concat
        self._split = split
        self._attending = None if projections is None else {"projections": projections}
        self._image_scale = image_scale
        self._expanded: dict[tuple[int, ...], Condition] = {}
        stretches = negative.stretches if negative else ()
        self._blind = {id(condition): replace(condition, blind=True) for _, condition in stretches}

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The guided prediction of x0 for `x` [B, C, h, w]."""
        if self._negative is None or (self._image_scale is None and not needs_negative(self._scales)):
            (alone,) = self._predict(x, sigma, self._next_call()[:1])
            return self._to_x0(x, sigma, alone)
        return self._to_x0(x, sigma, self._guided(x, sigma)[0])

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided x0 and that of the negative prompt alone. Needs a negative condition."""
        if self._negative is None:
            raise ValueError("guided_and_uncond needs a negative condition")
        guided, negative = self._guided(x, sigma)
        return self._to_x0(x, sigma, guided), self._to_x0(x, sigma, negative)

    def _next_call(self) -> list[Condition]:
        """The conditions of the next model call, the negative one last."""
        self._call += 1
        self._before(self._call)
        prompts = (*self._positive, self._negative) if self._negative else self._positive
        return [prompt.at(self._call) for prompt in prompts]

    def _guided(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The guided prediction, and that of the negative prompt or what stands in its place."""
        conditions = self._next_call()
        if self._image_scale is not None:
            *texts, seen, blind = self._predict(x, sigma, [*conditions, self._blind[id(conditions[-1])]])
            return _guide(texts, seen, self._scales) + (self._image_scale - 1) * (seen - blind), blind
        if self._skip(self._call, sigma):
            positive = self._predict(x, sigma, conditions[:-1])
            return _guide(positive, positive[0], [prompt.weight for prompt in self._positive]), positive[0]
        *positive, negative = self._predict(x, sigma, conditions)
        return _guide(positive, negative, self._scales), negative

    def _predict(self, x: Tensor, sigma: float, conditions: Sequence[Condition]) -> Sequence[Tensor]:
        """What the U-Net says under each condition."""
        if self._split or len({condition.states.shape for condition in conditions}) > 1:
            timesteps = self._timesteps(x, sigma)
            return [self._forward(x, sigma, timesteps, condition) for condition in conditions]
        count = len(conditions)
        rows = torch.cat([x] * count) if count > 1 else x
        return self._forward(rows, sigma, self._timesteps(rows, sigma), *conditions).chunk(count)

    def _timesteps(self, x: Tensor, sigma: float) -> Tensor:
        """One tensor for each model call: by it a U-Net that counts calls knows passes that belong together."""
        return torch.full((len(x),), self._timestep(sigma), device=x.device, dtype=torch.float32)

    def _forward(self, x: Tensor, sigma: float, timesteps: Tensor, *conditions: Condition) -> Tensor:
        """One U-Net pass over `x`, whose rows belong to `conditions` in equal shares."""
        condition = self._expand(conditions, len(x))
        scaled = x * (sigma * sigma + 1) ** -0.5
        if self._concat is not None:
            scaled = torch.cat((scaled, self._beside(scaled, conditions)), dim=1)
        out: Tensor = self._unet(
            scaled.to(self._dtype),
            timesteps,
            condition.states,
            added_cond_kwargs=condition.added,
            cross_attention_kwargs=self._attending,
            return_dict=False,
        )[0]
        return out.to(x.dtype)

    def _beside(self, x: Tensor, conditions: tuple[Condition, ...]) -> Tensor:
        """The extra channels for the rows of `x`."""
        assert self._concat is not None
        told = self._concat.to(x)
        each = [torch.zeros_like(told) if condition.blind else told for condition in conditions]
        share = len(x) // len(conditions)
        return torch.cat([channels.expand(share, -1, -1, -1) for channels in each])

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


def _guide(positive: Sequence[Tensor], negative: Tensor, scales: Sequence[float]) -> Tensor:
    """Several predictions to one."""
    if len(positive) == 1:
        return torch.lerp(negative, positive[0], scales[0])
    guided = negative
    for each, scale in zip(positive, scales, strict=True):
        guided = torch.add(guided, each - negative, alpha=scale)
    return guided
