"""A picture and its caption as training takes them: size, bucket, and the wording of one draw.

Every random choice is a function of (seed, position): ``draws`` is the generator of ``studio.training.counter`` for a purpose and the
position of the sample in the run, so a resumed run, or one of several processes, makes the same choices.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.schema.training_data import DatasetSettings
from studio.training.data.dataset import Item

SEPARATOR = ","
"""Between the parts of a caption that are shuffled."""


def fitted(picture: Image.Image, width: int, height: int, *, flipped: bool = False) -> npt.NDArray[np.float32]:
    """``picture`` scaled (Lanczos) until it just covers ``width`` x ``height`` pixels and cut to its middle: float32 ``[3, height, width]``
    in [-1, 1]. ``flipped`` mirrors it left to right."""
    scale = max(width / picture.width, height / picture.height)
    across, down = width / scale, height / scale
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + across, picture.width), min(top + down, picture.height))
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
    pixels = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1.0
    return np.ascontiguousarray(pixels[:, :, ::-1] if flipped else pixels)


@lru_cache(maxsize=64)
def buckets(resolution: int, step: int, ratio: float) -> tuple[tuple[int, int], ...]:
    """Shapes (width, height) in pixels: sides are multiples of ``step``, the area at most ``resolution`` squared and as large as
    the width allows, long side by short side at most ``ratio``. The (rounded) square is always among them. In order of the width."""
    area, found = resolution * resolution, set()
    square = resolution // step * step
    found.add((square, square))
    for short in range(step, square + 1, step):
        long = area // short // step * step
        if long <= short * ratio:
            found |= {(short, long), (long, short)}
    return tuple(sorted(found))


def bucket_of(size: tuple[int, int], resolution: int, *, step: int = 64, ratio: float = 4.0) -> tuple[int, int]:
    """The bucket (width, height) for a picture of ``size``: that of the nearest shape (difference of log width/height); of equally
    near ones the larger, then the narrower."""
    shape = math.log(size[0] / size[1])

    def distance(bucket: tuple[int, int]) -> tuple[float, int, int]:
        return (round(abs(math.log(bucket[0] / bucket[1]) - shape), 12), -bucket[0] * bucket[1], bucket[0])

    return min(buckets(resolution, step, ratio), key=distance)


def target_size(size: tuple[int, int], settings: DatasetSettings) -> tuple[int, int]:
    """What a picture of ``size`` is brought to, (width, height) in pixels: its bucket, or the square."""
    if not settings.buckets:
        return (settings.resolution, settings.resolution)
    return bucket_of(size, settings.resolution, step=settings.bucket_step, ratio=settings.bucket_ratio)


def caption_for(item: Item, settings: DatasetSettings, draws: np.random.Generator) -> str:
    """The wording of one draw: one of the captions, shuffled as the settings say, with the trigger word; or "" for the share that
    is dropped. The same numbers are drawn whatever the settings, so changing one leaves the other choices as they are."""
    chosen = item.captions[int(draws.integers(len(item.captions)))]
    dropped = bool(draws.random() < settings.caption_dropout)
    if dropped:
        return ""
    if settings.shuffle:
        chosen = shuffled(chosen, settings.keep_tokens, draws)
    return with_trigger(chosen, settings.trigger)


def shuffled(caption: str, keep: int, draws: np.random.Generator) -> str:
    """The comma-separated parts of ``caption`` in a random order, the first ``keep`` in their places. Empty parts go."""
    parts = [part.strip() for part in caption.split(SEPARATOR) if part.strip()]
    order = draws.permutation(len(parts[keep:]))
    return f"{SEPARATOR} ".join([*parts[:keep], *(parts[keep:][place] for place in order)])


def with_trigger(caption: str, trigger: str) -> str:
    """``caption`` with the trigger word in front, unless it holds the word already, as a whole word."""
    trigger = " ".join(trigger.split())
    if not trigger or _holds(caption, trigger):
        return caption
    return f"{trigger}{SEPARATOR} {caption}" if caption else trigger


def _holds(caption: str, word: str) -> bool:
    at = caption.find(word)
    while at >= 0:
        before, after = caption[at - 1 : at], caption[at + len(word) : at + len(word) + 1]
        if not (before.isalnum() or after.isalnum()):
            return True
        at = caption.find(word, at + 1)
    return False
