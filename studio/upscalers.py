"""How pictures are enlarged: one row each for what needs no file, and how A1111 calls the best known model files.

Light by design: the page, REST, the command line and infotext read the names here; `studio.engine.upscale` does the work. Those
on latents are A1111's six, for a second pass only. Those on pixels decode the picture, enlarge it and encode it again, and so do models: files of the
library, which go by their stem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from studio.errors import IncompatibleFile, UnknownName
from studio.registry import Registry
from studio.schema.models import ModelInfo

LatentMode = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]
PixelFilter = Literal["lanczos", "nearest"]
DEFAULT_UPSCALER = "Latent"
PLAIN_UPSCALER = "Lanczos"
"""What comes nearest to a model that is not here."""


@dataclass(frozen=True)
class Upscaler:
    """One row: what torch's `interpolate` is told (`latents`, with or without `antialias`), or which filter of Pillow (`pixels`)."""

    name: str
    latents: LatentMode | None = None
    antialias: bool = False
    pixels: PixelFilter = "lanczos"


UPSCALERS: Registry[Upscaler] = Registry("upscaler")
"""Every upscaler, latents first; `None` enlarges like Lanczos, as A1111 does without an upscaler."""

for _row in (
    Upscaler("Latent", "bilinear"),
    Upscaler("Latent (antialiased)", "bilinear", antialias=True),
    Upscaler("Latent (bicubic)", "bicubic"),
    Upscaler("Latent (bicubic antialiased)", "bicubic", antialias=True),
    Upscaler("Latent (nearest)", "nearest"),
    Upscaler("Latent (nearest-exact)", "nearest-exact"),
    Upscaler("None"),
    Upscaler("Lanczos"),
    Upscaler("Nearest", pixels="nearest"),
):
    UPSCALERS.add(_row.name, _row)

ON_PIXELS = tuple(row.name for row in UPSCALERS if row.latents is None)
"""Those without a file that what is between the passes goes through as a picture: any two checkpoints may paint before and after them."""


def on_latents(name: str) -> bool:
    """Whether the upscaler called `name` works on latents; models do not."""
    return name in UPSCALERS and UPSCALERS.get(name).latents is not None


SHOWN: dict[str, str] = {
    "RealESRGAN_x4plus": "R-ESRGAN 4x+",
    "RealESRGAN_x4plus_anime_6B": "R-ESRGAN 4x+ Anime6B",
    "RealESRGAN_x2plus": "R-ESRGAN 2x+",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3",
    "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
    "realesr-animevideov3": "R-ESRGAN AnimeVideo",
}
"""Stems of files that A1111 shows under another name, and that name. All other models it shows by their stem."""
PUBLISHED = {"ESRGAN": "ESRGAN_4x"}
"""Stem of a file as it is published, and the one that A1111 gives it when it fetches it."""


def stems_of(shown: str) -> list[str]:
    """The stems of the files that A1111 may mean by this name, where they are others."""
    wanted = shown.strip().casefold()
    return [stem for stem, name in (SHOWN | PUBLISHED).items() if name.casefold() == wanted]


def shown_name(name: str) -> str:
    """What A1111 calls the upscaler `name` of this program: a row above, or a model of the library."""
    stem = name.rpartition("/")[2]
    return SHOWN.get(stem, stem)


class Finder(Protocol):
    """What knows the model files."""

    def upscaler(self, name: str) -> ModelInfo:
        """By name. Raises `UnknownName`."""
        ...


def find_upscaler(name: str, library: Finder, field: str) -> tuple[Upscaler, ModelInfo | None]:
    """The upscaler called `name`, in this program or in A1111: a row, and the file where it is a model.

    Raises `UnknownName` with near matches and `IncompatibleFile` for a file that cannot be used, both naming `field`.
    """
    if name in UPSCALERS:
        return UPSCALERS.get(name), None
    try:
        info = library.upscaler(name)
    except UnknownName as error:
        error.field = field
        raise
    if info.problem:
        raise IncompatibleFile(f"{info.name!r} cannot be used: {info.problem}", field=field)
    return Upscaler(info.name), info


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of `tile` pixels begin that cover `length` pixels; `overlap` is less than `tile`. What is no longer than a tile has one.

    A1111's rule: as few as are needed, spread evenly, so that neighbours overlap by as much as asked for, or more.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    return [int(i * (length - tile) / (count - 1)) for i in range(count)]
