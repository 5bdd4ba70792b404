"""Enlarging and painting in tiles (SD upscale) in generation text: AUTOMATIC1111's two keys, and one of our own for the factor, which it does not record."""

from __future__ import annotations

from studio.schema.resolved import ResolvedRequest
from studio.upscalers import shown_name

UPSCALER_KEY = "SD upscale upscaler"
UPSCALE_KEYS = {
    "SD upscale overlap": "overlap",
    UPSCALER_KEY: "upscaler",
    "SD upscale scale factor": "scale_factor",
}
"""Fields of the part `sd_upscale`. The last key is our own."""


def upscale_pairs(resolved: ResolvedRequest) -> dict[str, object]:
    """The pairs, in A1111's order. `Size` is that of the tiles."""
    plan = resolved.sd_upscale
    if plan is None:
        return {}
    values = {"overlap": plan.overlap, "upscaler": shown_name(plan.upscaler), "scale_factor": plan.scale_factor}
    return {key: values[field] for key, field in UPSCALE_KEYS.items()}
