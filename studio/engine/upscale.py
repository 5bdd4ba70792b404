"""Enlarging between two passes: latents by interpolation, or the decoded picture, which is then encoded again.

In two halves, because the two checkpoints need not be loaded at once: what the first one leaves, and what the second begins with.

What is enlarged beyond the final size is cut off evenly, as there.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from studio.engine.decode import Decoder
from studio.engine.encode import encoded
from studio.engine.loading import LoadedVae
from studio.schema.resolved import HiresPlan
from studio.upscalers import UPSCALERS

Enlarged = Tensor | list[Image.Image]
"""What stands between the passes, at the size that covers the final one: latents [B, C, h, w], or as many pictures."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}


def enlarged(x: Tensor, plan: HiresPlan, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False) -> Enlarged:
    """Finished latents [B, C, h, w], enlarged as the plan's upscaler does it.

    `vae` is that of the first pass and decodes for the upscalers on pixels, see `Decoder` for `tiled` and `wraps`. Raises
    `EngineError` when it gives no numbers.
    """
    if _on_latents(plan):
        return _interpolated(x, plan, vae.latent.scale)
    decoder = Decoder(vae, tiled=tiled, wraps=wraps)
    return [_resized(decoder.picture(latents), plan) for latents in x]


def begun(large: Enlarged, plan: HiresPlan, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False) -> Tensor:
    """The latents [B, C, h, w], float32, that the second pass goes on from. `vae` is its own, and encodes pictures. Raises as `enlarged`."""
    if not isinstance(large, Tensor):
        large = torch.stack([encoded(picture, vae, tiled=tiled, wraps=wraps) for picture in large])
    return _cut(large, plan, vae.latent.scale)


def final_picture(
    latents: Tensor, plan: HiresPlan | None, vae: LoadedVae, *, tiled: bool = False, wraps: bool = False
) -> Image.Image:
    """The finished picture of latents [C, h, w]. After a second pass without strength these are still those of the first,
    and are enlarged here: no upscaler on pixels then has to encode anything."""
    decoder = Decoder(vae, tiled=tiled, wraps=wraps)
    if plan is None or plan.denoising_strength > 0:
        return decoder.picture(latents)
    if _on_latents(plan):
        return decoder.picture(begun(enlarged(latents[None], plan, vae), plan, vae)[0])
    picture = _resized(decoder.picture(latents), plan)
    left, top = (picture.width - plan.width) // 2, (picture.height - plan.height) // 2
    return picture.crop((left, top, left + plan.width, top + plan.height))


def _on_latents(plan: HiresPlan) -> bool:
    return UPSCALERS.get(plan.upscaler).latents is not None


def _interpolated(x: Tensor, plan: HiresPlan, scale: int) -> Tensor:
    row = UPSCALERS.get(plan.upscaler)
    assert row.latents is not None
    width, height = plan.covering
    size = (height // scale, width // scale)
    return torch.nn.functional.interpolate(x, size=size, mode=row.latents, antialias=row.antialias)


def _resized(picture: Image.Image, plan: HiresPlan) -> Image.Image:
    return picture.resize(plan.covering, FILTERS[UPSCALERS.get(plan.upscaler).pixels])


def _cut(x: Tensor, plan: HiresPlan, scale: int) -> Tensor:
    """The middle of `x` that the final size has; of an odd rest the larger part goes at the right and bottom."""
    height, width = plan.height // scale, plan.width // scale
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
