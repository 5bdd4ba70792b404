"""Previews: the predicted x0 as a small JPEG, by a linear map from latent channels to colour instead of the VAE.

About a thousandth of the VAE's cost. The factors come with the model family; for the embedded model they are fitted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

MAX_SIDE = 256
JPEG_QUALITY = 80


class Previewer:
    """Draws previews of one latent space; pictures may differ in size.

    Args:
        factors: [C][3], RGB value per unit of each latent channel, on latents as the U-Net sees them.
        bias: [3], RGB value of a latent of zeros. Values are in -1..1: pixel = (value + 1) / 2 · 255.
        scale: pixels per latent and side; a preview is never larger than the picture, nor than 256 on its longer side.
    """

    def __init__(self, factors: Sequence[Sequence[float]], bias: Sequence[float], scale: int) -> None:
        self._factors = torch.as_tensor(factors, dtype=torch.float32)
        self._bias = torch.as_tensor(bias, dtype=torch.float32)
        self._scale = scale

    def draw(self, denoised: Tensor) -> tuple[bytes, ...]:
        """One JPEG per picture of `denoised` [B, C, h, w]."""
        height, width = denoised.shape[2] * self._scale, denoised.shape[3] * self._scale
        size = preview_size(width, height)
        return tuple(self._encode(picture, size) for picture in self.pictures(denoised))

    def pictures(self, denoised: Tensor) -> list[Image.Image]:
        """The same as pictures of one pixel a latent."""
        return [Image.fromarray(pixels.numpy()) for pixels in latent_rgb(denoised, self._factors, self._bias)]

    def _encode(self, small: Image.Image, size: tuple[int, int]) -> bytes:
        picture = small.resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def latent_rgb(latents: Tensor, factors: Tensor, bias: Tensor) -> Tensor:
    """Latents [B, C, h, w] to pixels [B, h, w, 3], uint8 on the CPU; 255 · value cut, not rounded, and NaN gives 0."""
    channels_last = latents.movedim(1, -1).float()
    values = torch.addmm(bias.to(latents.device), channels_last.flatten(0, -2), factors.to(latents.device))
    pixels = values.add_(1).mul_(127.5).nan_to_num_(0.0).clamp_(0, 255).to(torch.uint8)
    return pixels.reshape(*channels_last.shape[:-1], 3).cpu()


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Largest size of the same shape that is no larger than the picture and no longer than `MAX_SIDE`; at least 1x1."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
