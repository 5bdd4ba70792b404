"""A branch: one picture that goes on from a step of another, with another prompt, guidance or sampler.

The steps of the origin are painted first, unless the latents they end with were kept; the latents are rounded to float16 either
way, so both give the same picture. An origin may be a branch itself. There is one picture in a branch, so it runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from studio.engine.latents import rounded
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.passes import DenoisingPass, StartPoint
from studio.errors import InvalidRequest
from studio.samplers.types import Step
from studio.schema.resolved import BranchPlan, ResolvedRequest

MakePass = Callable[[ResolvedRequest], DenoisingPass]
"""A pass for one request, its LoRAs in force. One pass is in use at a time."""


class BranchPass:
    """Stands for `DenoisingPass` in a job with a branch.

    Args:
        resolved: the request, with a branch.
        make: builds the passes, each when its turn comes.
        start: the kept latents; None paints the origin's steps.
    """

    def __init__(self, resolved: ResolvedRequest, make: MakePass, start: StartPoint | None = None) -> None:
        if resolved.branch is None:
            raise ValueError("a branch pass needs a branch")
        self._resolved = resolved
        self._plan: BranchPlan = resolved.branch
        self._make = make
        self._start = start
        self._in_use: DenoisingPass | BranchPass | None = None
        self.total = self._plan.step + max(1, resolved.steps - self._plan.step)
        """The number of the last step; an estimate until the branch itself begins."""

    def steps(self, seeds: Sequence[int], subseeds: Sequence[int] = ()) -> Iterator[Step]:
        """The origin's steps if they are needed, then the branch's own, counted on. As `DenoisingPass.steps`.

        Raises `InvalidRequest` when the origin has fewer steps than the branch wants, or nothing is left to do after them.
        """
        start = self._start
        if start is None:
            last: Step | None = None
            self._in_use = self._origin()
            for step in self._in_use.steps(seeds, subseeds):
                yield step
                if step.index + 1 == self._plan.step:
                    last = step
                    break
            start = self._left_at(last)
        own = self._in_use = self._make(self._resolved)
        self.total = own.total_from(start)
        yield from own.steps(seeds, subseeds, start)

    def settled(self, x: Tensor) -> Tensor:
        """See `DenoisingPass.settled`; there must have been a step."""
        assert self._in_use is not None
        return self._in_use.settled(x)

    @property
    def painter(self) -> LoadedCheckpoint:
        """The checkpoint that painted the last step; there must have been one."""
        assert self._in_use is not None
        return self._in_use.painter

    def _origin(self) -> DenoisingPass | BranchPass:
        origin = self._plan.origin
        return BranchPass(origin, self._make) if origin.branch else self._make(origin)

    def _left_at(self, step: Step | None) -> StartPoint:
        if step is None or step.sigma_next == 0:
            raise InvalidRequest(
                f"The picture that is branched from has no step {self._plan.step} to go on from: it is finished by then.",
                field="branch.step",
            )
        with torch.inference_mode():
            return StartPoint(rounded(step.x), step.sigma_next, self._plan.step)
