"""What a pass knows of the picture it begins with: its latents, where they are painted anew, and the sampler's view of both.

A masked pass keeps what is not masked by putting the picture's latents there at every model call. Samplers on sigmas get a
prediction of x0 in which they stand; samplers on timesteps have them put into what the model is shown, as in AUTOMATIC1111.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.engine.canvas import Canvas, mask_values
from studio.engine.decode import to_samples
from studio.engine.encode import encoded
from studio.engine.loading import LoadedVae
from studio.samplers.types import GuidedDenoiser
from studio.schema.resolved import MaskPlan, ResolvedRequest
from studio.schema.source import LATENT_UPSCALE


@dataclass(frozen=True)
class SourceLatents:
    """The picture of one job as latents of one checkpoint.

    Attributes:
        latents: clean, [1, C, h, w], float32, as the U-Net sees them; [B, C, h, w] where each picture of a batch begins with its own.
        mask: 1 where is painted, [1, 1, h, w]; None paints everything.
        channels: what the U-Net is told beside the noise: for inpainting a mask and latents, [1, 1 + C, h, w]; for instructions latents as
            the VAE gives them, unscaled, [1, C, h, w]; None for others.
        content: what the masked part begins with.
        noise_multiplier: scale of the noise over it.
    """

    latents: Tensor
    mask: Tensor | None
    channels: Tensor | None
    content: str
    noise_multiplier: float

    def init(self, noise: Tensor) -> Tensor:
        """The clean latents [B, C, h, w] of a batch; `noise` is that of its seeds, for a masked part that begins with noise."""
        whole = self.latents.expand(len(noise), -1, -1, -1)
        if self.mask is None or self.content not in ("latent noise", "latent nothing"):
            return whole
        kept = whole * (1 - self.mask)
        return kept + noise * self.mask if self.content == "latent noise" else kept


def source_latents(
    canvas: Canvas,
    resolved: ResolvedRequest,
    vae: LoadedVae,
    *,
    inpaint: bool,
    edit: bool = False,
    device: torch.device,
    tiled: bool = False,
) -> SourceLatents:
    """Encode what `canvas` shows. `inpaint` and `edit` say that the U-Net wants to be told of it, `tiled` is as for `Decoder`.

    Raises `EngineError` when the VAE gives no numbers.
    """
    source, plan, wraps = resolved.source, resolved.mask, resolved.tiling
    assert source is not None
    size = (resolved.height // vae.latent.scale, resolved.width // vae.latent.scale)
    upscaled = source.resize_mode == LATENT_UPSCALE
    latents = encoded(canvas.original if upscaled else canvas.picture, vae, tiled=tiled, wraps=wraps)[None].to(device)
    if latents.shape[2:] != size:
        latents = torch.nn.functional.interpolate(latents, size=size, mode="bilinear")
    mask = None if canvas.mask is None or plan is None else _latent_mask(canvas, plan, size).to(device)
    channels = _told(canvas, plan, vae, latents, tiled=tiled, wraps=wraps) if inpaint else None
    if edit:
        told = encoded(canvas.picture, vae, tiled=tiled, wraps=wraps)[None].to(device)
        channels = told / vae.latent.scaling_factor + vae.latent.shift_factor
    content = plan.content if plan else "original"
    return SourceLatents(latents, mask, channels, content, source.noise_multiplier)


def together(pictures: Sequence[SourceLatents]) -> SourceLatents:
    """Pictures of one size without a mask as one batch; of a single one the same."""
    if len(pictures) == 1:
        return pictures[0]
    told = [picture.channels for picture in pictures if picture.channels is not None]
    latents = torch.cat([picture.latents for picture in pictures])
    return replace(pictures[0], latents=latents, channels=torch.cat(told) if told else None)


class MaskedDenoiser:
    """A `GuidedDenoiser` that keeps `init` [B, C, h, w] where `mask` [1, 1, h, w] is 0.

    Args:
        inner: predicts x0.
        init: clean latents.
        mask: 1 where is painted.
        before: they are put into what the model is shown; else into what it predicts.
    """

    def __init__(self, inner: GuidedDenoiser, init: Tensor, mask: Tensor, *, before: bool) -> None:
        self._inner = inner
        self._kept = init * (1 - mask)
        self._mask = mask
        self._before = before

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """See `GuidedUNet`."""
        if not self._before:
            return blended(self._inner(x, sigma), self._kept, self._mask)
        shown = self._shown(x, sigma)
        return self._inner(shown, sigma) + (x - shown)

    def guided_and_uncond(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """See `GuidedUNet`."""
        if not self._before:
            guided, uncond = self._inner.guided_and_uncond(x, sigma)
            return blended(guided, self._kept, self._mask), uncond
        shown = self._shown(x, sigma)
        guided, uncond = self._inner.guided_and_uncond(shown, sigma)
        return guided + (x - shown), uncond + (x - shown)

    def _shown(self, x: Tensor, sigma: float) -> Tensor:
        """`x` with the clean latents where is not painted, at the unit variance that samplers on timesteps work in. What they take for
        noise is then what the model says of this, added to their own `x`: a prediction of x0 that differs from it by as much."""
        return x * self._mask + self._kept * math.sqrt(1 + sigma * sigma)


def blended(painted: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """`painted` where `mask` is 1; `kept` is already 0 there."""
    return painted * mask + kept


def _latent_mask(canvas: Canvas, plan: MaskPlan, size: tuple[int, int]) -> Tensor:
    """The mask at the size of the latents, [1, 1, h, w]: two values, or greys where they count."""
    assert canvas.mask is not None
    small = mask_values(canvas.mask.resize((size[1], size[0])))
    return (small.round() if plan.rounding else small)[None, None]


def _told(
    canvas: Canvas, plan: MaskPlan | None, vae: LoadedVae, latents: Tensor, *, tiled: bool, wraps: bool
) -> Tensor:
    """A mask and the latents of the picture without what is masked, as far as the plan says; without a mask all is to be painted."""
    if canvas.mask is None or plan is None:
        seen, hidden = torch.ones_like(latents[:, :1]), torch.zeros_like(to_samples(canvas.picture))
    else:
        mask = mask_values(canvas.mask)
        mask = mask.round() if plan.rounding else mask
        picture = to_samples(canvas.picture)
        hidden = torch.lerp(picture, picture * (1 - mask), plan.conditioning_weight)
        seen = torch.nn.functional.interpolate(mask[None, None], size=latents.shape[2:]).to(latents.device)
    return torch.cat((seen, encoded(hidden, vae, tiled=tiled, wraps=wraps)[None].to(latents.device)), dim=1)
