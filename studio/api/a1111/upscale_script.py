"""A1111's script SD upscale, which is the part `sd_upscale` of a request here. `script_args` has no names: its places are those of A1111 1.10."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.errors import InvalidRequest
from studio.schema.upscale import SdUpscale

SD_UPSCALE = "sd upscale"
"""Its title as A1111's lists have it, in small letters."""
ARGUMENTS: dict[str, tuple[str, Any]] = {
    "info": ("", ""),
    "overlap": ("Tile overlap", 64),
    "upscaler": ("Upscaler", "None"),
    "scale_factor": ("Scale Factor", 2.0),
}
"""What stands at each place, A1111's label of it, and what it is where the list ends earlier. The first is a text on its page."""


def is_sd_upscale(name: str | None) -> bool:
    """Whether a `script_name` is that of this script."""
    return bool(name) and str(name).strip().casefold() == SD_UPSCALE


def upscale_call(arguments: Sequence[Any], upscalers: Sequence[str]) -> dict[str, Any]:
    """Fields of the part. An upscaler may be a number in `upscalers`, the list that A1111's page and REST show.

    Raises `InvalidRequest` naming the argument at fault.
    """
    if len(arguments) > len(ARGUMENTS):
        raise InvalidRequest(
            f"script_args: there are {len(arguments)}; {SD_UPSCALE} takes {len(ARGUMENTS)} at most: {', '.join(ARGUMENTS)}.",
            field="script_args",
        )
    given = {name: value for name, value in zip(ARGUMENTS, arguments, strict=False) if value is not None}
    asked = {name: default for name, (_, default) in ARGUMENTS.items()} | given
    number = asked["upscaler"]
    if isinstance(number, int):
        if isinstance(number, bool) or not 0 <= number < len(upscalers):
            raise InvalidRequest(
                f"script_args[2] (upscaler): there is no upscaler {number!r}; numbers go from 0 to {len(upscalers) - 1}. "
                f"Choose from {', '.join(upscalers)}.",
                field="script_args.upscaler",
                choices=tuple(upscalers),
            )
        asked["upscaler"] = upscalers[number]
    return {name: asked[name] for name in ("overlap", "upscaler", "scale_factor")}


def upscale_info() -> dict[str, Any]:
    """A1111's description of the script."""

    def argument(name: str) -> dict[str, Any]:
        label, value = ARGUMENTS[name]
        bounds = {"overlap": 16, "scale_factor": 0.05}
        rules = {} if name not in bounds else {
            key: getattr(rule, key)
            for rule in SdUpscale.model_fields[name].metadata
            for key in ("ge", "le")
            if hasattr(rule, key)
        }  # fmt: skip
        return {
            "label": label,
            "value": value,
            "minimum": rules.get("ge"),
            "maximum": rules.get("le"),
            "step": bounds.get(name),
            "choices": None,
        }

    return {
        "name": SD_UPSCALE,
        "is_alwayson": False,
        "is_img2img": True,
        "args": [argument(name) for name in ARGUMENTS],
    }
