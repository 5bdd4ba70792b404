"""The analytic denoiser of the sampler vectors, and the noise recorded with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class MixtureDenoiser:
    """The exact x0 prediction for data from a mixture of isotropic Gaussians; computed in float64, returned in x's dtype.

    With s_k = v_k + σ²: log r_k = log π_k − (n/2)·log s_k − ‖x − μ_k‖²/(2·s_k), normalised over k, and
    D(x; σ) = Σ_k r_k·(v_k·x + σ²·μ_k)/s_k.

    Args:
        means: μ, [K, C, h, w].
        variances: v, K values.
        weights: π of the prompt.
        weights_uncond: π without it, where guidance is wanted.
        scale: guidance scale.
    """

    def __init__(
        self,
        means: Tensor,
        variances: list[float],
        weights: list[float],
        weights_uncond: list[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        self._means = means.double().flatten(1)
        self._variances = torch.tensor(variances, dtype=torch.float64)
        self._log_weights = torch.tensor(weights, dtype=torch.float64).log()
        self._log_weights_uncond = (
            None if weights_uncond is None else torch.tensor(weights_uncond, dtype=torch.float64).log()
        )
        self._scale = scale
        self.sigmas: list[float] = []
        """σ of every call."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.guided_and_uncond(x, sigma)[0]

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        self.sigmas.append(sigma)
        cond = self._predict(x, sigma, self._log_weights)
        if self._log_weights_uncond is None:
            return cond, cond
        uncond = self._predict(x, sigma, self._log_weights_uncond)
        return uncond + self._scale * (cond - uncond), uncond

    def _predict(self, x: Tensor, sigma: float, log_weights: Tensor) -> Tensor:
        flat = x.double().flatten(1)
        s = self._variances + sigma**2
        squares = flat.square().sum(1, keepdim=True) - 2 * flat @ self._means.T + self._means.square().sum(1)
        log_r = log_weights - flat.shape[1] / 2 * s.log() - squares / (2 * s)
        r = log_r.softmax(1)
        result = flat * (r * (self._variances / s)).sum(1, keepdim=True) + (r * (sigma**2 / s)) @ self._means
        return result.view_as(x).to(x.dtype)


class RecordedNoise:
    """Noise from the vectors: draw k of an array, and the normalised increments of a Brownian path in the order asked for.

    Args:
        draws: [N, B, C, h, w]; draw 0 is the start noise.
        increments: [M, B, C, h, w].
        intervals: the (σ, σ') each increment belongs to.
    """

    def __init__(self, draws: Tensor, increments: Tensor | None = None, intervals: Any = ()) -> None:
        self._draws = draws
        self._increments = increments
        self._intervals = intervals
        self.drawn = 1
        self.asked: list[tuple[float, float]] = []

    def start(self) -> Tensor:
        return self._draws[0]

    def draw(self) -> Tensor:
        self.drawn += 1
        return self._draws[self.drawn - 1]

    def brownian(self, sigma_min: float, sigma_max: float) -> RecordedNoise:
        return self

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        assert self._increments is not None
        self.asked.append((sigma, sigma_next))
        return self._increments[len(self.asked) - 1]
