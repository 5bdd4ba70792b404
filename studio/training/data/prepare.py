"""Pictures and captions as the model is shown them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from studio.schema.training_data import DatasetSettings
from studio.training.data.dataset import Item


def fitted(picture: Image.Image, width: int, height: int, *, flipped: bool = False) -> npt.NDArray[np.float32]:
    """`picture` resized and cut at its centre to `width` x `height`: float32 [3, height, width] in -1..1."""
    fit = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(ImageOps.mirror(fit) if flipped else fit, dtype=np.float32)
    return np.ascontiguousarray((pixels / 127.5 - 1).transpose(2, 0, 1))


def bucket_of(size: tuple[int, int], resolution: int, *, step: int = 64) -> tuple[int, int]:
    """(width, height) in multiples of `step` with about `resolution` squared pixels and the shape nearest to `size`."""
    ratio, area = size[0] / size[1], resolution * resolution
    widths = range(step, 2 * resolution + 1, step)
    sizes = [(width, max(step, int(area / width) // step * step)) for width in widths]
    return min(sizes, key=lambda each: (abs(np.log(each[0] / each[1] / ratio)), -each[0] * each[1]))


def caption_for(item: Item, settings: DatasetSettings, draws: np.random.Generator) -> str:
    """The caption to train `item` with, a function of `draws` alone: choice, dropout, shuffle, trigger word."""
    caption = item.captions[int(draws.integers(len(item.captions)))]
    dropped = draws.random() < settings.caption_dropout
    if settings.shuffle:
        parts = [part.strip() for part in caption.split(",")]
        kept, rest = parts[: settings.keep_tokens], parts[settings.keep_tokens :]
        caption = ", ".join([*kept, *(rest[int(place)] for place in draws.permutation(len(rest)))])
    if dropped:
        return ""
    return ", ".join(part for part in (settings.trigger, caption) if part)
