"""What learns in a run: named parameters in groups with rates of their own, and the modules they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from studio.training.checkpoint import Tensors
from studio.training.methods.scratch.average import WeightAverage
from studio.training.tuning.optimizers import Groups


@dataclass(frozen=True)
class Group:
    """Parameters by name, unique over all groups; their rate is the run's times `factor`."""

    parameters: Mapping[str, nn.Parameter]
    factor: float = 1.0


class Learner:
    """The parameters of a run. `modules` are put into training mode for a step and into evaluation mode otherwise."""

    def __init__(self, modules: tuple[nn.Module, ...], *groups: Group) -> None:
        self._modules = modules
        self._groups = tuple(group for group in groups if group.parameters)
        self.parameters = [parameter for group in self._groups for parameter in group.parameters.values()]

    def groups(self, rate: float) -> Groups:
        """For the optimizer."""
        return [{"params": list(group.parameters.values()), "peak": rate * group.factor} for group in self._groups]

    def state_dict(self) -> Tensors:
        """The weights by name, no copies."""
        return {name: value.data for group in self._groups for name, value in group.parameters.items()}

    def copies(self) -> Tensors:
        """The weights as they are now."""
        return {name: value.clone() for name, value in self.state_dict().items()}

    @torch.no_grad()
    def load(self, tensors: Tensors) -> None:
        """Put `tensors` in place of the weights; all must be there."""
        for name, value in self.state_dict().items():
            value.copy_(tensors[name])

    def mode(self, *, training: bool) -> None:
        """Training or evaluation mode."""
        for module in self._modules:
            module.train(training)

    @contextmanager
    def averaged(self, average: WeightAverage | None) -> Iterator[None]:
        """In evaluation mode, with the averaged weights where an average is kept; afterwards as before."""
        kept = self.copies() if average else {}
        if average:
            average.copy_to(self)
        self.mode(training=False)
        try:
            yield
        finally:
            if average:
                self.load(kept)
