"""Enlarging between two passes: latents by interpolation, or the decoded picture, which is then encoded again.

In two halves, because the two checkpoints need not be loaded at once: what the first one leaves, and what the second begins with.

What is enlarged beyond the final size is cut off evenly, as there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from studio.engine.decode import Decoder
from studio.engine.encode import encoded
from studio.engine.enlarging import UpscalerModel, Work, enlarged_picture
from studio.engine.loading import LoadedVae
from studio.schema.models import ModelInfo
from studio.schema.resolved import HiresPlan
from studio.upscalers import UPSCALERS, on_latents

Load = Callable[[ModelInfo], UpscalerModel]
"""Gives the model of an upscaler."""
Enlarged = Tensor | list[Image.Image]
"""What stands between the passes, at the size that covers the final one: latents [B, C, h, w], or as many pictures."""


def enlarged(
    x: Tensor, plan: HiresPlan, vae: LoadedVae, load: Load, *, tiled: bool = False, wraps: bool = False
) -> Work[Enlarged]:
    """Finished latents [B, C, h, w], enlarged as the plan's upscaler does it.

    `vae` is that of the first pass and decodes for the upscalers on pixels, see `Decoder` for `tiled` and `wraps`; `load` gives a model. Raises
    `EngineError` when one of them gives no numbers.
    """
    if on_latents(plan.upscaler):
        with torch.inference_mode():
            return _interpolated(x, plan, vae.latent.scale)
    decoder = Decoder(vae, tiled=tiled, wraps=wraps)
    pictures = []
    for latents in x:
        with torch.inference_mode():
            picture = decoder.picture(latents)
        pictures.append((yield from _resized(picture, plan, load)))
    return pictures


def begun(large: Enlarged, plan: HiresPlan, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False) -> Tensor:
    """The latents [B, C, h, w], float32, that the second pass goes on from. `vae` is its own, and encodes pictures. Raises as `enlarged`."""
    if not isinstance(large, Tensor):
        large = torch.stack([encoded(picture, vae, tiled=tiled, wraps=wraps) for picture in large])
    return _cut(large, plan, vae.latent.scale)


def final_picture(
    latents: Tensor, plan: HiresPlan | None, vae: LoadedVae, load: Load, *, tiled: bool = False, wraps: bool = False
) -> Work[Image.Image]:
    """The finished picture of latents [C, h, w]. After a second pass without strength these are still those of the first,
    and are enlarged here, as `enlarged` does: no upscaler on pixels then has to encode anything."""
    decoder = Decoder(vae, tiled=tiled, wraps=wraps)
    if plan is None or plan.denoising_strength > 0:
        return decoder.picture(latents)
    if on_latents(plan.upscaler):
        return decoder.picture(_cut(_interpolated(latents[None], plan, vae.latent.scale), plan, vae.latent.scale)[0])
    picture = yield from _resized(decoder.picture(latents), plan, load)
    left, top = (picture.width - plan.width) // 2, (picture.height - plan.height) // 2
    return picture.crop((left, top, left + plan.width, top + plan.height))


def _interpolated(x: Tensor, plan: HiresPlan, scale: int) -> Tensor:
    row = UPSCALERS.get(plan.upscaler)
    assert row.latents is not None
    width, height = plan.covering
    size = (height // scale, width // scale)
    return torch.nn.functional.interpolate(x, size=size, mode=row.latents, antialias=row.antialias)


def _resized(picture: Image.Image, plan: HiresPlan, load: Load) -> Work[Image.Image]:
    model = load(plan.upscaler_model) if plan.upscaler_model else None
    return enlarged_picture(picture, plan.covering, plan.upscaler, model)


def _cut(x: Tensor, plan: HiresPlan, scale: int) -> Tensor:
    """The middle of `x` that the final size has; of an odd rest the larger part goes at the right and bottom."""
    height, width = plan.height // scale, plan.width // scale
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
