"""The diffusion objective: v-prediction (Salimans & Ho 2022, arXiv:2202.00512) with timesteps drawn by log-SNR.

x_t = alpha_t x_0 + sigma_t eps,   v = alpha_t eps - sigma_t x_0,   log SNR = 2 log(alpha / sigma).
At 16x16 to 32x32 latents the text decides at high noise only; a normal distribution of log-SNR with a negative mean spends the passes there. Once the
text is followed the mean moves up, to where outlines and details are made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from studio.schema.training import DiffusionPart
from studio.training.noise_levels import log_snr_table, nearest_timesteps


class Objective:
    """Noises latents and gives the targets, for one noise schedule (``alphas_cumprod`` of shape (T,))."""

    def __init__(self, alphas_cumprod: torch.Tensor, part: DiffusionPart) -> None:
        self._alpha = alphas_cumprod.sqrt().float()
        self._sigma = (1 - alphas_cumprod).sqrt().float()
        self._log_snr = log_snr_table(alphas_cumprod)
        self._part = part

    def timesteps(self, rng: np.random.Generator, count: int, *, late: bool = False) -> npt.NDArray[np.int64]:
        """``count`` timesteps, log-SNR normally distributed (``late``: about the later mean), ``uniform_share`` of them uniform."""
        mean = self._part.snr_mean_late if late else self._part.snr_mean
        wanted = rng.normal(mean, self._part.snr_deviation, size=count)
        uniform = rng.random(count) < self._part.uniform_share
        by_snr = nearest_timesteps(self._log_snr, wanted)
        return np.where(uniform, rng.integers(len(self._log_snr), size=count), by_snr)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t"""
        return self._at(self._alpha, timesteps, latents) * latents + self._at(self._sigma, timesteps, latents) * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """v"""
        return self._at(self._alpha, timesteps, latents) * noise - self._at(self._sigma, timesteps, latents) * latents

    @staticmethod
    def _at(table: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return table.to(like.device)[timesteps].view(-1, 1, 1, 1)
