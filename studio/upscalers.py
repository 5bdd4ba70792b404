"""How a finished first pass is enlarged for the second: one row each.

Light by design: the page, REST, the command line and infotext read the names here; `studio.engine.upscale` does the work. Those
on latents are A1111's six. Those on pixels decode the picture, enlarge it and encode it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studio.registry import Registry

LatentMode = Literal["bilinear", "bicubic", "nearest", "nearest-exact"]
PixelFilter = Literal["lanczos", "nearest"]
DEFAULT_UPSCALER = "Latent"


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
"""Those that what is between the passes goes through as a picture: any two checkpoints may paint before and after them."""
