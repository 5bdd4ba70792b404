"""Timesteps by how noisy they are: log-SNR = log(ᾱ / (1 - ᾱ)), which does not depend on a model's noise schedule as numbers of timesteps do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

_MOST = 30.0
"""What log-SNR is at most taken for, up or down: schedules with zero terminal SNR end in ᾱ = 0."""


def log_snr_table(alphas_cumprod: torch.Tensor) -> npt.NDArray[np.float64]:
    """log-SNR of every timestep, falling, finite; ``alphas_cumprod`` is ᾱ (T,)."""
    return (torch.log(alphas_cumprod) - torch.log1p(-alphas_cumprod)).double().clamp(-_MOST, _MOST).numpy()


def nearest_timesteps(table: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64] | float) -> npt.NDArray[np.int64]:
    """The timesteps whose log-SNR in ``table`` is nearest to each of ``wanted``; what lies outside comes to the first or the last."""
    places = np.interp(-np.asarray(wanted), -table, np.arange(len(table)))
    nearest: npt.NDArray[np.int64] = np.rint(places).astype(np.int64)
    return nearest
