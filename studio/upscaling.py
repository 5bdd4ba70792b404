"""What enlarging and painting in tiles (SD upscale) comes to: sizes, upscaler, and what does not go together with it."""

from __future__ import annotations

from studio.errors import InvalidRequest
from studio.schema.parts import LARGEST_SIDE, SMALLEST_SIDE
from studio.schema.request import GenerationRequest
from studio.schema.resolved import ResolvedRequest, SdUpscalePlan, SourcePlan
from studio.schema.upscale import MOST_TILES, SdUpscale
from studio.upscalers import ON_PIXELS, find_upscaler, tile_starts
from studio.wording import ModelLookup

PIXEL_STEP = 8
AS_IT_IS = "None"
"""The upscaler that leaves the size; only for a second pass it enlarges."""


def upscale_plan(
    request: GenerationRequest, source: SourcePlan | None, tile: tuple[int, int], library: ModelLookup
) -> SdUpscalePlan | None:
    """The enlarged picture and its tiles, which are no larger than it; `tile` is what is asked for, multiples of 8.

    Raises `UnknownName`, `IncompatibleFile`, and `InvalidRequest` for an upscaler on latents, a picture that becomes too large or too
    small, and tiles that overlap wholly or are too many.
    """
    part = request.sd_upscale
    if part is None or source is None:
        return None
    upscaler, file = find_upscaler(part.upscaler, library, "sd_upscale.upscaler")
    if upscaler.latents is not None:
        raise InvalidRequest(
            f"sd_upscale.upscaler = {upscaler.name!r} works on latents, and a picture is to be enlarged: choose from {', '.join(ON_PIXELS)}, or a model.",
            field="sd_upscale.upscaler",
        )
    scale = 1.0 if upscaler.name == AS_IT_IS else part.scale_factor
    width, height = (int(side * scale) // PIXEL_STEP * PIXEL_STEP for side in (source.image.width, source.image.height))
    if max(width, height) > LARGEST_SIDE or min(width, height) < SMALLEST_SIDE:
        raise InvalidRequest(
            f"SD upscale would make {width}x{height} pixels of {source.image.width}x{source.image.height}; its sides may have "
            f"{SMALLEST_SIDE} to {LARGEST_SIDE}.",
            field="sd_upscale.scale_factor",
        )
    tile = min(tile[0], width), min(tile[1], height)
    _check_tiles(part, (width, height), tile)
    return SdUpscalePlan(
        upscaler=upscaler.name,
        upscaler_model=file,
        scale_factor=scale,
        overlap=part.overlap,
        width=width,
        height=height,
        tile=tile,
    )


def fixed_upscale(resolved: ResolvedRequest) -> SdUpscale | None:
    """The part with its answers written in, as `studio.resolve.fixed` does."""
    plan = resolved.sd_upscale
    if plan is None:
        return None
    return SdUpscale(upscaler=plan.upscaler, scale_factor=plan.scale_factor, overlap=plan.overlap)


def refuse_branching(resolved: ResolvedRequest, field: str) -> None:
    """Raises `InvalidRequest` for a picture in tiles that is branched from, or is to be a branch."""
    if resolved.sd_upscale is not None:
        raise InvalidRequest(
            "A picture that is painted in tiles (SD upscale) can neither be branched from nor be a branch: its steps are those of single tiles.",
            field=field,
        )


def _check_tiles(part: SdUpscale, size: tuple[int, int], tile: tuple[int, int]) -> None:
    if any(part.overlap >= side for side, whole in zip(tile, size, strict=True) if side < whole):
        raise InvalidRequest(
            f"sd_upscale.overlap = {part.overlap} is not possible with tiles of {tile[0]}x{tile[1]} pixels: it should be less than a side.",
            field="sd_upscale.overlap",
        )
    across, down = (len(tile_starts(size[i], tile[i], part.overlap)) for i in (0, 1))
    if across * down > MOST_TILES:
        raise InvalidRequest(
            f"SD upscale would paint {across * down:,} tiles of {tile[0]}x{tile[1]} pixels; {MOST_TILES:,} are possible: raise width and height, or lower the overlap.",
            field="width",
        )
