"""An exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any, Protocol

import torch

_WARM_UP = 9


class Weights(Protocol):
    """What has named weights: a module, or a part of several."""

    def state_dict(self) -> dict[str, Any]:
        """The weights themselves, no copies."""
        ...


class WeightAverage:
    """Average of the floating-point entries of ``model.state_dict()``; early on it follows faster, with weight 9 / (n + 9)."""

    def __init__(self, model: Weights, decay: float) -> None:
        self._decay = decay
        self.tensors = {
            name: value.detach().clone().float()
            for name, value in model.state_dict().items()
            if value.is_floating_point()
        }
        self._count = torch.zeros((), dtype=torch.int64)
        self.tensors["updates"] = self._count

    @torch.no_grad()
    def update(self, model: Weights) -> None:
        """Move towards the present weights."""
        self._count += 1
        weight = max(1 - self._decay, _WARM_UP / (int(self._count) + _WARM_UP))
        for name, value in model.state_dict().items():
            if name in self.tensors:
                self.tensors[name].lerp_(value.float(), weight)

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore from ``tensors`` of an earlier sitting."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def copy_to(self, model: Weights) -> None:
        """Put the average into ``model``."""
        for name, value in model.state_dict().items():
            if name in self.tensors:
                value.copy_(self.tensors[name])
