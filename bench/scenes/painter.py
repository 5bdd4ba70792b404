"""Pictures from the product's own engine, with the settings that all figures are measured at."""

from __future__ import annotations

import io
import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from bench._models import OneModel
from bench.scenes.track import track
from studio.errors import EngineError
from studio.resolve import resolve
from studio.schema.engine import CancelToken, Engine
from studio.schema.events import ImageReady
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest, RunOptions
from studio.training.methods.judge.judge import Picture
from studio.wording import ModelLookup

SAMPLER, SCHEDULE, STEPS, CFG = "DPM++ 2M", "Karras", 20, 4.0
FEW_STEPS, FEW_SCHEDULE = 6, "SGM Uniform"
"""What pictures in a hurry take. With Karras, which spends most of so few steps on fine noise, objects are not finished."""

Order = tuple[str, int]
"""Prompt and seed of one picture."""


@dataclass(frozen=True)
class Painter:
    """Paints one picture for each order, without previews; on several ``engines`` at once where many are asked for.

    ``size`` is (width, height) in pixels, the model's native square where it is None.
    """

    engines: tuple[Engine, ...]
    model: ModelInfo
    schedule: str = SCHEDULE
    steps: int = STEPS
    cfg: float = CFG
    negative: str = ""
    size: tuple[int, int] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request."""
    library: ModelLookup | None = None
    """Where LoRAs of the prompts are found; without one prompts may name none."""

    def __call__(self, prompt: str, seed: int) -> Picture:
        """RGB (height, width, 3). Raises ``StudioError`` as the engine does."""
        return self._paint(self.engines[0], prompt, seed)

    def all(self, orders: Sequence[Order], what: str) -> list[Picture]:
        """A picture of each order, in their order, with a progress bar named ``what``. Raises as a call does."""
        idle: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for engine in self.engines:
            idle.put(engine)

        def paint(order: Order) -> Picture:
            engine = idle.get()
            try:
                return self._paint(engine, *order)
            finally:
                idle.put(engine)

        with ThreadPoolExecutor(len(self.engines)) as pool:
            return list(track(pool.map(paint, orders), what, len(orders)))

    def _paint(self, engine: Engine, prompt: str, seed: int) -> Picture:
        width, height = self.size or (self.model.native_size, self.model.native_size)
        request = GenerationRequest(
            prompt=prompt, negative_prompt=self.negative, sampler=SAMPLER, schedule=self.schedule, steps=self.steps,
            cfg_scale=self.cfg, width=width, height=height, seed=seed, model=self.model.name, **self.changes,
        )  # fmt: skip
        options = RunOptions(preview_every=0, save=False)
        resolved = resolve(request, self.library or OneModel(self.model), lambda: seed, options=options)
        ready = [event for event in engine.run(resolved, CancelToken()) if isinstance(event, ImageReady)]
        if not ready:
            raise EngineError(f"The engine painted nothing for {prompt!r}.")
        return np.asarray(Image.open(io.BytesIO(ready[0].png)).convert("RGB"))


def seconds_each(painter: Painter, prompts: Sequence[str]) -> list[float]:
    """Wall seconds for each prompt, painted alone; one unmeasured picture goes ahead."""
    painter(f"{prompts[0]}, once more", 0)
    seconds = []
    for seed, prompt in enumerate(prompts):
        began = time.perf_counter()
        painter(prompt, seed)
        seconds.append(time.perf_counter() - began)
    return seconds
