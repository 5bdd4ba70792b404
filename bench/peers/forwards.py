"""Processor seconds that a program spends in the models themselves, taken from outside of it. For processes with one thread a model (`client.THREADS`)."""

from __future__ import annotations

import functools
import time
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

CALLS = (
    (UNet2DConditionModel, "forward"),
    (CLIPTextModel, "forward"),
    (CLIPTextModelWithProjection, "forward"),
    (AutoencoderKL, "decode"),
)
"""The calls that a picture cannot do without: the sum of forwards. Encoding a picture is not among them: no workload begins with one."""


class Forwards:
    """From its making on, every call of `CALLS` adds its seconds to `seconds`. A call within a call counts once.

    Those of the thread that calls: what other threads do meanwhile, say pack a preview, is not the model's.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False
        for owner, name in CALLS:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, call: Any) -> Any:
        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return call(*arguments, **options)
            self._inside, began = True, time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                self._inside = False
                self.seconds += time.thread_time() - began

        return timed
