"""The part of a request that enlarges the picture it begins with and paints it tile by tile (A1111's script SD upscale)."""

from __future__ import annotations

from pydantic import Field

from studio.schema.parts import Frozen

MOST_TILES = 1024
"""Tiles a picture may be painted in: beyond that a typing error is likelier than a wish."""


class SdUpscale(Frozen):
    """Enlarge the picture of `Source`, paint it in tiles of the request's width and height, and put them together. Without an upscaler it is off.

    Each batch is one picture, which is painted `batch_size` tiles at a time.
    """

    upscaler: str = Field(
        "",
        max_length=300,
        description="What enlarges the picture before it is painted in tiles: one on pixels, or a model; None leaves its size, empty is off",
    )
    scale_factor: float = Field(2.0, ge=1, le=4, description="Enlarge both sides by this")
    overlap: int = Field(
        64, ge=0, le=256, description="Pixels that neighbouring tiles share and go over into each other in"
    )
