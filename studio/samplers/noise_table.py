"""The noise levels a model was trained with, and the way between a noise level and a timestep.

With ᾱ_t the running product of 1 − β (Ho et al. 2020, "Denoising Diffusion Probabilistic Models", eq. 4), a noised latent is
√ᾱ·x0 + √(1−ᾱ)·n. Divided by √ᾱ it becomes x0 + σ·n with σ = √((1−ᾱ)/ᾱ): the form all samplers here work in.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from studio.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor


TIE = 1e-4
"""Timesteps this near to the middle between two entries are in the middle; float32 logarithms are good to about 1e-5."""


class NoiseTable:
    """σ of every training timestep, ascending, as float32 values.

    `sigmas` in half precision have their logarithm computed in half precision.

    Attributes:
        sigmas: float32 tensor [T] on the CPU.
        log_sigmas: its natural logarithm, float32.
        sdxl: whether tables measured for SDXL apply (Align Your Steps differs between SD 1.x and SDXL).
    """

    def __init__(self, sigmas: Tensor, *, sdxl: bool = False) -> None:
        self.sigmas = sigmas.float()
        self.log_sigmas = sigmas.log().float()
        self.sdxl = sdxl
        self._logs: list[float] = self.log_sigmas.tolist()

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Sequence[float] | Tensor, *, sdxl: bool = False) -> NoiseTable:
        """From ᾱ of every timestep (falling, inside 0…1). Computed in float64, then rounded to float32.

        Raises:
            InvalidRequest: a value outside 0…1 (as zero terminal SNR has), or not falling.
        """
        import torch

        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu()
        falling = bool((alphas[1:] < alphas[:-1]).all())
        if not (falling and float(alphas[-1]) > 0 and float(alphas[0]) < 1):
            raise InvalidRequest(
                "The model's alphas_cumprod must fall steadily and stay between 0 and 1, both excluded."
            )
        return cls(((1 - alphas) / alphas).sqrt(), sdxl=sdxl)

    @classmethod
    def downcast(cls, alphas_cumprod: Sequence[float] | Tensor, *, sdxl: bool = False) -> NoiseTable:
        """The same in half precision: ᾱ is rounded to it, and σ and log σ are computed in it, as A1111 before 1.7 did.

        An ᾱ that would round to 1 takes the largest number below. Where σ would be infinite (zero terminal SNR) only ᾱ is rounded.
        """
        import torch

        rounded = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu().half().clamp(max=1 - 2**-11)
        sigmas = ((1 - rounded) / rounded).sqrt()
        if not bool(torch.isfinite(sigmas).all()):
            sigmas = ((1 - rounded.double()) / rounded.double()).sqrt()
        return cls(sigmas, sdxl=sdxl)

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Tensor, *, sdxl: bool = False) -> NoiseTable:
        """From β of every timestep."""
        import torch

        return cls.from_alphas_cumprod((1 - torch.as_tensor(betas, dtype=torch.float64)).cumprod(0), sdxl=sdxl)

    @classmethod
    def scaled_linear(
        cls, beta_start: float = 0.00085, beta_end: float = 0.012, count: int = 1000, *, sdxl: bool = False
    ) -> NoiseTable:
        """√β on an even ramp: Stable Diffusion 1.x, 2.x and XL with the default values."""
        import torch

        return cls.from_betas(
            torch.linspace(beta_start**0.5, beta_end**0.5, count, dtype=torch.float64) ** 2, sdxl=sdxl
        )

    @classmethod
    def linear(cls, beta_start: float, beta_end: float, count: int = 1000, *, sdxl: bool = False) -> NoiseTable:
        """β on an even ramp (DDPM)."""
        import torch

        return cls.from_betas(torch.linspace(beta_start, beta_end, count, dtype=torch.float64), sdxl=sdxl)

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def sigma_min(self) -> float:
        """The smallest trained noise level, about 0.0292 for Stable Diffusion."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The largest trained noise level, about 14.6146 for Stable Diffusion."""
        return float(self.sigmas[-1])

    def sigma(self, t: float) -> float:
        """σ at a timestep, between table entries by linear interpolation of log σ; `t` is clamped to 0…T−1."""
        import torch

        return float(self.sigmas_at(torch.tensor([t], dtype=torch.float32))[0])

    def sigmas_at(self, t: Tensor) -> Tensor:
        """`sigma` for a float32 tensor of timesteps."""
        t = t.float().clamp(0, len(self) - 1)
        low = t.floor().long()
        high = t.ceil().long()
        w = t.frac()
        return ((1 - w) * self.log_sigmas[low] + w * self.log_sigmas[high]).exp()

    def timestep(self, sigma: float) -> float:
        """The fractional timestep of a noise level, interpolated in log σ; 0 and T−1 outside the table.

        This is what A1111 (k-diffusion) feeds the model. `sigma` must be positive.
        """
        log = math.log(sigma)
        low = min(max(bisect_right(self._logs, log) - 1, 0), len(self) - 2)
        below, above = self._logs[low], self._logs[low + 1]
        if below == above:  # half precision knows levels that are equal
            return float(low)
        return low + min(max((log - below) / (above - below), 0.0), 1.0)

    def nearest_timestep(self, sigma: float) -> int:
        """The table entry nearest in log σ, the lower one on a tie. What Forge and ComfyUI feed the model.

        Schedules do put levels halfway between two entries, where float32 rounding would decide: that counts as a tie.
        """
        t = self.timestep(sigma)
        low = math.floor(t)
        return low if t - low <= 0.5 + TIE else low + 1

    def every(self, stride: int) -> NoiseTable:
        """The table of only each `stride`-th timestep, counted so that the last one stays: stride−1, 2·stride−1, …"""
        return NoiseTable(self.sigmas[stride - 1 :: stride], sdxl=self.sdxl)
