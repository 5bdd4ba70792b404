"""Trying again where memory runs out: the loop for it, and what is given up for a job that has not begun to paint.

While it paints, `studio.engine.painting` and `studio.engine.saving` say what is given up.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator
from typing import TypeVar

from studio.engine.faces.restore import FaceKeeper
from studio.engine.failure import is_out_of_memory
from studio.engine.hardware import Hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.offload import Offload
from studio.engine.saving import MOVING
from studio.schema.events import Event, Status
from studio.schema.resolved import ResolvedRequest

SPARED = "Too little memory: once more, without what other jobs left there"
AGAIN = "Too little memory: once more"
T = TypeVar("T")


def insist(
    attempt: Callable[[], Generator[Event, None, T]], less: Callable[[], str], hardware: Hardware
) -> Generator[Event, None, T]:
    """What `attempt` does and gives, once more each time that it runs out of memory.

    `less` sees to it that less is needed, and says how, for the user; it says nothing when there is no more to do, and then it is raised what was.
    """
    while True:
        try:
            return (yield from attempt())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = less()
            if not message:
                raise
            traceback.clear_frames(error.__traceback__)  # or they hold what there is too little of
        hardware.free()
        yield Status(message=message)


class Spare:
    """What is given up before a job paints; none of it changes a picture.

    First goes what the job does not need: other checkpoints, and what is kept only to save time. Then, on a card, its own checkpoint waits
    outside of it, until the next job.
    """

    def __init__(self, resolved: ResolvedRequest, keeper: ModelKeeper, faces: FaceKeeper, hardware: Hardware) -> None:
        self._resolved = resolved
        self._keeper = keeper
        self._faces = faces
        self._hardware = hardware
        self._spared = False

    def less(self) -> str:
        """See `insist`. Raises `NotFound` when a file of the job is gone."""
        loaded = self._keeper.held(self._resolved.model)
        if not self._spared:
            self._spared = True
            if any([self._faces.keep_only(self._resolved.faces), self._keeper.spare(self._resolved)]):
                return SPARED
            if loaded:  # with what failed beside it, LoRAs of the job before may have gone
                return AGAIN
        if loaded is None or loaded.offload != Offload.NONE or loaded.parked or self._hardware.device.type == "cpu":
            return ""
        loaded.park()
        return MOVING
