"""Enlarging pictures: by a filter of Pillow, or by a model that works through them in tiles.

What takes long is a generator that says how far it is between two tiles, so that whoever drives it can tell, and stop.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from studio.engine.esrgan import load_upscaler
from studio.engine.leaving import Ask, between
from studio.engine.tiles import Patchwork, Size
from studio.errors import EngineError
from studio.schema.events import Status
from studio.schema.models import ModelInfo
from studio.upscalers import UPSCALERS

T = TypeVar("T")
TILE, OVERLAP = 192, 8
"""Pixels of a tile's side, and that neighbours share; A1111's."""
MOST_RUNS = 3
"""How often a model is applied to what it made, until the size is reached."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
TELL_SECONDS = 1.0
"""Between two words about it."""


@dataclass(frozen=True)
class Enlarging:
    """How far enlarging is: tiles done, of how many, by which model."""

    done: int
    total: int
    name: str


Work = Generator[Enlarging, None, T]
"""What gives a T in the end, and says meanwhile how far it is."""


class UpscalerModel:
    """A loaded model. Raises what `load_upscaler` raises."""

    _ask: Ask | None = None

    def __init__(self, info: ModelInfo, device: torch.device) -> None:
        self._name, self._device = info.name, device
        self._module, self._times = load_upscaler(Path(info.path), device)

    def asking(self, ask: Ask | None) -> UpscalerModel:
        """The same for one job, which is asked within a tile too: it may take as long as many steps. `run` raises what `ask` does."""
        asks = copy.copy(self)
        asks._ask = ask
        return asks

    def run(self, picture: Image.Image) -> Work[Image.Image]:
        """`picture`, RGB, as large as the model makes it. Raises `EngineError` when it gives no numbers."""
        pieces = Patchwork(picture.size, (TILE, TILE), OVERLAP, self._times)
        boxes = pieces.boxes
        for number, box in enumerate(boxes):
            pieces.add(self._tile(picture.crop(box)))
            yield Enlarging(number + 1, len(boxes), self._name)
        return pieces.picture

    @torch.inference_mode()
    def _tile(self, tile: Image.Image) -> Image.Image:
        """Models are shown blue first and red last, whatever they were trained with, and so is their answer read: as in A1111."""
        values = np.asarray(tile.convert("RGB"), np.float32)[..., ::-1] / 255
        shown = torch.from_numpy(values).permute(2, 0, 1)[None].to(self._device)
        with between(self._ask):
            large: torch.Tensor = self._module(shown)[0]
        if not bool(torch.isfinite(large).all()):
            raise EngineError(
                f"Upscaler {self._name} gave no numbers (NaN). Its file may be damaged: choose another one."
            )
        pixels = (large.clamp(0, 1) * 255).round().to(torch.uint8).flip(0).permute(1, 2, 0)
        return Image.fromarray(pixels.cpu().numpy())


def enlarged_picture(
    picture: Image.Image, size: Size, upscaler: str, model: UpscalerModel | None, *, at_least_once: bool = False
) -> Work[Image.Image]:
    """`picture` at `size`. `upscaler` is a row of the table, or a `model` enlarges.

    As A1111 does it, a model is applied, again and again but not more than three times, until both sides are reached, and Lanczos brings the result to the size. A
    picture that is large enough is left to Lanczos, unless the model is to be applied `at_least_once`.
    """
    if model is None:
        return picture.resize(size, FILTERS[UPSCALERS.get(upscaler).pixels])
    runs = 0
    while runs < MOST_RUNS and (_is_smaller(picture, size) or (at_least_once and not runs)):
        before, runs = picture.size, runs + 1
        picture = yield from model.run(picture)
        if picture.size == before:
            break
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


class Teller:
    """Says how far enlarging is, not more often than once a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def words(self, state: Enlarging) -> Iterator[Status]:
        """What there is to be said now: one event, or none."""
        now = time.monotonic()
        if now - self._last >= TELL_SECONDS:
            self._last = now
            yield Status(message=f"Enlarging with {state.name}: {state.done} of {state.total}")

    def told(self, work: Work[T], left: Callable[[], bool]) -> Generator[Status, None, T | None]:
        """Do `work` and say how far it is; None when it was `left`."""
        while True:
            try:
                state = next(work)
            except StopIteration as end:
                found: T = end.value
                return found
            if left():
                work.close()
                return None
            yield from self.words(state)


def _is_smaller(picture: Image.Image, size: Size) -> bool:
    return picture.width < size[0] or picture.height < size[1]
