"""Several processes training one model: each takes its part of every batch, and gradients are averaged.

The processes are started by ``torchrun`` (which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT); a process started alone is a team of one
and does none of this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(hours=12)
"""How long the others wait while the first process prepares data alone."""


@dataclass(frozen=True)
class Team:
    """The processes of a run, as one of them sees it."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls) -> Team:
        """Join the team that the environment describes; alone when it describes none."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """The process that saves, reports and prepares data."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's items of a batch of ``count``."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether one of the team says yes; all must ask."""
        if self.size == 1:
            return flag
        said = torch.tensor(float(flag))
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said > 0)

    def total(self, *values: float) -> tuple[float, ...]:
        """Each of ``values`` summed over the team; all must ask."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return tuple(sums.tolist())

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the team."""
        if self.size == 1:
            return
        learned = [parameter for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in learned if parameter.grad is not None])
        dist.all_reduce(flat)
        flat /= self.size
        for parameter, part in zip(learned, torch.split(flat, [each.numel() for each in learned]), strict=True):
            parameter.grad = part.view_as(parameter)  # a view: copying back would cost as much as sending

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """Everybody's ``part``, equal in shape, joined along the first axis in the order of ranks.

        For a loss of the whole batch that every process computes alike: backwards, the own part gets ``size`` times its gradient and the
        others get none, so that ``average_gradients`` then leaves the gradient of that loss.
        """
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.detach().contiguous())
        parts[self.rank] = part + (self.size - 1) * (part - part.detach())
        return torch.cat(parts)
