"""The training noise schedule of a model, from its scheduler configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from studio.errors import IncompatibleFile

_LAST_ALPHA = 4.8973451890853435e-08
"""What stands for the zero at the end of a zero-terminal schedule, so that sigma (about 4519) stays finite. A1111's value."""


def alphas_cumprod(config: Mapping[str, Any], zero_terminal_snr: bool) -> torch.Tensor:
    """ᾱ of every training step, float64 [T], descending.

    `beta_schedule` may be scaled_linear (an even ramp of square roots, SD), linear or squaredcos_cap_v2 (Nichol and
    Dhariwal 2021), or `trained_betas` a list. `zero_terminal_snr`: see `zero_terminal`. Raises `IncompatibleFile` for
    values that make no schedule.
    """
    try:
        result = torch.cumprod(1 - _betas(config), dim=0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise IncompatibleFile(f"The noise schedule cannot be used: {error}.") from None
    if result.ndim != 1 or len(result) < 2 or not bool(((result > 0) & (result < 1)).all()):
        raise IncompatibleFile("The noise schedule cannot be used: its betas must lie between 0 and 1.")
    return zero_terminal(result) if zero_terminal_snr else result


def zero_terminal(alphas: torch.Tensor) -> torch.Tensor:
    """The schedule `alphas`, [T] in float64, moved so that its last step is (almost) nothing but noise.

    √ᾱ is shifted to end at 0 and scaled to begin where it did: algorithm 1 of Lin et al. 2023, "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", https://arxiv.org/abs/2305.08891. A schedule that was moved already stays as it is.
    """
    if float(alphas[-1]) == _LAST_ALPHA:
        return alphas
    root = alphas.sqrt()
    scaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    result = scaled**2
    result[-1] = _LAST_ALPHA
    return result


def _betas(config: Mapping[str, Any]) -> torch.Tensor:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    kind, count = config.get("beta_schedule", "linear"), int(config.get("num_train_timesteps", 1000))
    if not 2 <= count <= 100_000:
        raise ValueError(f"num_train_timesteps is {count}")
    first, last = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
    if kind == "linear":
        return torch.linspace(first, last, count, dtype=torch.float64)
    if kind == "squaredcos_cap_v2":
        time = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        level = torch.cos((time + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - level[1:] / level[:-1]).clamp(max=0.999)
    raise ValueError(f"beta_schedule {kind!r} is not known (scaled_linear, linear, squaredcos_cap_v2)")
