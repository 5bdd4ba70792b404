"""The second pass (hires. fix): the finished latents of a first pass enlarged, given fresh noise, and painted on.

The noise is drawn at the new size from the same seeds, as for a picture of that size. The schedule is lengthened so that exactly the
steps asked for are run: n steps of strength s are the last n of int(n / s) (`studio.samplers.planning`). Steps are counted on.
Another checkpoint may paint the second pass: then what reads the prompts, the noise levels and the VAE are that one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from studio.engine.branching import BranchPass
from studio.engine.enlarging import Enlarging, Work
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.passes import DenoisingPass
from studio.engine.upscale import Enlarged
from studio.samplers.types import Step
from studio.schema.resolved import ResolvedRequest

Enlarge = Callable[[Tensor, LoadedCheckpoint], Work[Enlarged]]
"""Finished latents, and the checkpoint that painted them, to what is between the passes."""
Begin = Callable[[Enlarged, LoadedCheckpoint], Tensor]
"""What is between the passes, and the checkpoint that goes on, to latents of the second pass."""


class TwoPasses:
    """Stands for `DenoisingPass` in a job with a second pass that paints.

    Args:
        first: makes the first pass, which may be a branch; `second` the second, with its strength. Each is called when its turn
            comes, once a batch: loading and merging LoRAs may happen there, and the first checkpoint may be gone afterwards.
        enlarge: the first half of what stands between them, before the second is made.
        begin: the other half, after it is made.
        steps: how many the second pass has, known before it is made.
    """

    def __init__(
        self,
        first: Callable[[], DenoisingPass | BranchPass],
        second: Callable[[], DenoisingPass],
        enlarge: Enlarge,
        begin: Begin,
        steps: int,
    ) -> None:
        self._first = first
        self._second = second
        self._enlarge = enlarge
        self._begin = begin
        self._steps = steps
        self._done = 0
        self._in_use: DenoisingPass | BranchPass | None = None

    @property
    def total(self) -> int:
        """The number of the last step of both passes; an estimate where samplers choose their own."""
        assert self._in_use is not None
        return self._done + self._in_use.total if self._done else self._in_use.total + self._steps

    @property
    def painter(self) -> LoadedCheckpoint:
        """The checkpoint that painted the last step; there must have been one."""
        assert self._in_use is not None
        return self._in_use.painter

    def settled(self, x: Tensor) -> Tensor:
        """See `DenoisingPass.settled`; there must have been a step."""
        assert self._in_use is not None
        return self._in_use.settled(x)

    def steps(self, seeds: Sequence[int], subseeds: Sequence[int] = ()) -> Iterator[Step | Enlarging]:
        """The steps of both passes, counted through, and how far enlarging between them is. As `DenoisingPass.steps`."""
        self._done = 0
        last: Step | None = None
        first = self._in_use = self._first()
        for last in first.steps(seeds, subseeds):
            yield last
        assert last is not None, "a plan has at least one step"
        large = yield from self._enlarge(last.x, first.painter)
        second = self._in_use = self._second()
        self._done = last.index + 1
        with torch.inference_mode():
            latents = self._begin(large, second.painter)
        for step in second.steps(seeds, subseeds, init=latents):
            yield replace(step, index=step.index + self._done)


def second_pass(resolved: ResolvedRequest) -> ResolvedRequest:
    """The second pass of `resolved`, which has one, as a request of its own. What another checkpoint predicts is what its file says."""
    plan = resolved.hires
    assert plan is not None
    own = (
        "model",
        "width",
        "height",
        "steps",
        "sampler",
        "schedule",
        "cfg_scale",
        "positive",
        "negative",
        "loras",
        "hypernetworks",
        "vae",
        "text_encoders",
        "embeddings",
        "refiner",
        "padding",
        "token_merging_ratio",
        "extra_noise",
    )
    changes = {**{name: getattr(plan, name) for name in own}, "hires": None, "branch": None}
    if plan.model.path != resolved.model.path:
        changes["prediction_type"] = "Automatic"
    return resolved.model_copy(update=changes)
