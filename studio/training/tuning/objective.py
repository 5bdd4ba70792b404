"""The diffusion loss of a checkpoint: its own noise schedule and prediction type.

x_t = α_t x_0 + σ_t ε with α² = ᾱ, σ² = 1 - ᾱ. Target: ε, or v = α_t ε - σ_t x_0 (Salimans & Ho 2022, arXiv:2202.00512).
Min-SNR weights, with SNR = ᾱ / (1 - ᾱ) (Hang et al. 2023, arXiv:2303.09556): min(SNR, γ) / SNR for ε, min(SNR, γ) / (SNR + 1) for v.
Timesteps are drawn evenly, or so that their log-SNR is normally distributed (Karras et al. 2022, arXiv:2206.00364, for log σ).
Noise offset: ε + offset * n, one n for each picture and channel (Guttenberg 2023, "Diffusion with offset noise").
"""

from __future__ import annotations

import numpy as np
import torch

from studio.schema.models import PredictionType
from studio.schema.training_tuning import LossPart
from studio.training.noise_levels import log_snr_table, nearest_timesteps


class Objective:
    """Noises latents, gives targets and weights. `alphas_cumprod` is [T] in float64."""

    def __init__(self, alphas_cumprod: torch.Tensor, prediction: PredictionType, part: LossPart) -> None:
        self._alpha = alphas_cumprod.sqrt().float()
        self._sigma = (1 - alphas_cumprod).sqrt().float()
        self._weights = _loss_weights(alphas_cumprod / (1 - alphas_cumprod), part.min_snr_gamma, prediction)
        self._log_snr = log_snr_table(alphas_cumprod)
        self._predicts_v = prediction == "v_prediction"
        self._part = part

    @property
    def timesteps(self) -> int:
        """T"""
        return len(self._alpha)

    def draw(self, rng: np.random.Generator) -> int:
        """A timestep to learn at, as the settings say."""
        if self._part.snr_mean is None:
            return int(rng.integers(self.timesteps))
        return int(nearest_timesteps(self._log_snr, rng.normal(self._part.snr_mean, self._part.snr_deviation)))

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t for `latents` and `noise` [B, C, h, w] at `timesteps` [B]."""
        return _at(self._alpha, timesteps) * latents + _at(self._sigma, timesteps) * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the U-Net should say."""
        if not self._predicts_v:
            return noise
        return _at(self._alpha, timesteps) * noise - _at(self._sigma, timesteps) * latents

    def weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Weight of each picture's loss, float32 [B]; ones without min-SNR."""
        return self._weights.to(timesteps.device)[timesteps]

    def offset(self, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """`noise` with the offset; `level` is unit noise [B, C, 1, 1]."""
        return noise + self._part.noise_offset * level if self._part.noise_offset else noise


def _loss_weights(snr: torch.Tensor, gamma: float | None, prediction: PredictionType) -> torch.Tensor:
    """Min-SNR weights (arXiv:2303.09556) of all timesteps, float32 [T]: not all devices have the float64 of `snr`."""
    if not gamma:
        return torch.ones_like(snr, dtype=torch.float32)
    return (snr.clamp(max=gamma) / (snr + 1 if prediction == "v_prediction" else snr)).float()


def _at(table: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    return table.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
