"""Live pictures: what a request comes to while somebody is typing it, and how one is asked for.

Few steps have to do, and which schedule they go by then matters more than anything else: with the embedded model six steps of
SGM Uniform are as good as twenty, while Karras spends most of them on noise that nobody sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from studio.jobs import Sketch
from studio.samplers import find_sampler
from studio.schema.request import GenerationRequest, RunOptions

if TYPE_CHECKING:
    from studio.app import Studio

__all__ = ["FEWEST_STEPS", "MOST_STEPS", "STEPS", "Sketch", "ask_sketch", "sketch_request"]

FEWEST_STEPS, STEPS, MOST_STEPS = 4, 6, 8
"""Bounds of a live picture's steps, and how many it has when nobody says."""
SCHEDULE = "SGM Uniform"
SAMPLER = "DPM++ 2M"
"""What paints in place of a sampler that draws noise between its steps, or goes by levels of its own."""


def sketch_request(request: GenerationRequest, steps: int) -> GenerationRequest:
    """`request` as one live picture of `steps` steps, in which no faces are restored.

    A branch keeps its own steps, sampler and schedule: the step that it begins at is one of them.
    """
    changes: dict[str, Any] = {
        "batch_count": 1,
        "batch_size": 1,
        "hires": None,
        "sd_upscale": None,
        "plot": None,
        "face_restoration": "",
    }
    if request.branch is None:
        sampler = find_sampler(request.sampler)
        settles = sampler.can_branch and not sampler.brownian and sampler.eta(request.sampler_options) == 0
        changes |= {"steps": steps, "schedule": SCHEDULE, "sampler": sampler.name if settles else SAMPLER}
    return request.model_copy(update=changes)


def ask_sketch(
    studio: Studio, request: GenerationRequest, steps: int, client: str, number: int, wake: Callable[[], None]
) -> Sketch:
    """Ask for a live picture of `request` in place of the last that `client` asked for; see `studio.jobs.sketches`.

    It is told, not saved. Raises what `Studio.resolve` raises, and `QueueFull`.
    """
    resolved = studio.resolve(sketch_request(request, steps), RunOptions(save=False))
    sketch = Sketch(client, number, resolved, wake)
    studio.queue.sketches.put(sketch)
    return sketch
