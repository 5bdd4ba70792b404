"""The picture that a job begins with, as the model gets it, and the way back into the picture (img2img, inpainting).

    kept picture ── cut to the part around the mask ── brought to the size that is painted ── masked part filled ──> picture
    kept mask ──── made of two values, turned, blurred ── the same cut and size ──────────────────────────────────> mask
    finished ────> back to the size and place of the part ── what is not masked laid over it ─────────────────────> picture

The rules are A1111's, so that the same picture and mask give the same pixels. A mask is white where is painted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from studio.engine.decode import to_samples
from studio.engine.resizing import Size, resized
from studio.errors import InvalidRequest
from studio.library.init_images import open_init_image
from studio.schema.resolved import MaskPlan, SourcePlan

Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two outside."""
FILLS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Blur radii by which colours from around the mask flow into it, and how often each is laid over; A1111's."""
THRESHOLD = 128
"""A mask of two values is white above this."""


@dataclass(frozen=True)
class Frame:
    """Where the finished picture goes: into `whole` at `box` (None: it is all of it), only where `mask`, of the size of `whole`, lets it."""

    whole: Image.Image
    box: Box | None
    mask: Image.Image


@dataclass(frozen=True)
class Canvas:
    """What is painted on.

    Attributes:
        original: the kept picture, RGB, at its own size; the part around the mask only where only that is painted.
        picture: the same at the size that is painted, its masked part as the mask's content says.
        mask: grey, of that size; None paints everything.
        frame: the way back; None leaves the finished picture as it is.
    """

    original: Image.Image
    picture: Image.Image
    mask: Image.Image | None = None
    frame: Frame | None = None

    def finished(self, painted: Image.Image) -> Image.Image:
        """What was painted, put where it belongs."""
        if self.frame is None:
            return painted
        frame = self.frame
        if frame.box is not None:
            left, top, right, bottom = frame.box
            part = resized(painted, (right - left, bottom - top), "Crop and resize")
            painted = frame.whole.copy()
            painted.paste(part, (left, top))
        return Image.composite(painted, frame.whole, frame.mask)


def prepare(source: SourcePlan, mask: MaskPlan | None, size: Size) -> Canvas:
    """The canvas of `size` for a picture and its mask.

    Raises `DamagedFile` for a picture that cannot be read, and `InvalidRequest` for a mask with nothing to paint.
    """
    original = open_init_image(source.image).convert("RGB")
    if mask is None:
        return Canvas(original, resized(original, size, source.resize_mode))
    area = _mask(mask, original.size)
    if area.getbbox() is None:
        raise InvalidRequest(
            "The mask is empty, so nothing would be painted: draw where, or invert it.",
            field="mask.inverted" if mask.inverted else "mask.image",
        )
    if mask.area == "Only masked":
        return _part(original, area, mask, size)
    seen = resized(area, size, source.resize_mode)
    whole = resized(original, size, source.resize_mode)
    cover = seen.point(lambda value: min(2 * value, 255))
    return Canvas(original, _with_content(whole, seen, mask), seen, Frame(whole, None, cover))


def surroundings(mask: Image.Image, padding: int, size: Size) -> Box:
    """The box around the white of `mask` with `padding` pixels, widened to the shape of `size` as far as the picture goes."""
    box = mask.getbbox()
    assert box is not None, "an empty mask is refused before"
    left, top = max(box[0] - padding, 0), max(box[1] - padding, 0)
    right, bottom = min(box[2] + padding, mask.width), min(box[3] + padding, mask.height)
    shape = size[0] / size[1]
    if (right - left) / (bottom - top) > shape:
        top, bottom = _widened(top, bottom, int((right - left) / shape), mask.height)
    else:
        left, right = _widened(left, right, int((bottom - top) * shape), mask.width)
    return left, top, right, bottom


def _widened(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """The stretch made `length` long around its middle, moved to lie within 0 and `limit`, and cut where it cannot."""
    more = length - (end - start)
    start, end = start - more // 2, end + more - more // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


def _part(original: Image.Image, area: Image.Image, mask: MaskPlan, size: Size) -> Canvas:
    box = surroundings(area, mask.padding, size)
    seen = resized(area.crop(box), size, "Resize and fill")
    part = original.crop(box)
    picture = resized(part, size, "Resize and fill")
    return Canvas(part, _with_content(picture, seen, mask), seen, Frame(original, box, area))


def _mask(plan: MaskPlan, size: Size) -> Image.Image:
    mask = open_init_image(plan.image).convert("L")
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    if plan.rounding:
        mask = mask.point(lambda value: 255 if value > THRESHOLD else 0)
    if plan.inverted:
        mask = ImageOps.invert(mask)
    return _blurred(mask, plan.blur) if plan.blur else mask


def _blurred(mask: Image.Image, sigma: int) -> Image.Image:
    """Gaussian blur of standard deviation `sigma` pixels, cut off at 2.5 of them, mirrored at the edges."""
    radius = int(2.5 * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2).float()
    weights /= weights.sum()
    values = to_samples(mask)[:1][None] * 127.5 + 127.5
    for kernel, pad in (
        (weights.view(1, 1, 1, -1), (radius, radius, 0, 0)),
        (weights.view(1, 1, -1, 1), (0, 0, radius, radius)),
    ):
        side = values.shape[3] if pad[0] else values.shape[2]
        mode = "reflect" if radius < side else "replicate"
        values = torch.nn.functional.conv2d(torch.nn.functional.pad(values, pad, mode=mode), kernel)
    return Image.fromarray(values[0, 0].round().clamp(0, 255).to(torch.uint8).numpy())


def _with_content(picture: Image.Image, mask: Image.Image, plan: MaskPlan) -> Image.Image:
    return picture if plan.content == "original" else filled(picture, mask)


def filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """`picture` with its masked part painted over by the blurred colours around it, the farther in the coarser."""
    outside = Image.new("RGBa", picture.size)
    outside.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    result = Image.new("RGBA", picture.size)
    for radius, times in FILLS:
        layer = outside.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(layer)
    return result.convert("RGB")


def mask_values(mask: Image.Image) -> Tensor:
    """A mask's values [H, W], 0 to 1, float32."""
    return (to_samples(mask)[0] + 1) / 2
