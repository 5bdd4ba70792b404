"""A1111's scripts. One is there: X/Y/Z plot, which is the part `plot` of a request here.

`script_args` has no names: its places are those of A1111 1.10, where an axis is named by its number in the drop-down of the page. There
the list is txt2img's or img2img's own, and some axes in it are not here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from studio.errors import InvalidRequest
from studio.schema.plot import AxisType, Plot

PLOT = "x/y/z plot"
"""Its title as A1111's lists have it, in small letters."""

_AXES = (
    "Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "Hires steps", "CFG Scale", "Image CFG Scale", "Prompt S/R",
    "Prompt order", "Sampler", "Hires sampler", "Checkpoint name", "Negative Guidance minimum sigma", "Sigma Churn", "Sigma min",
    "Sigma max", "Sigma noise", "Schedule type", "Schedule min sigma", "Schedule max sigma", "Schedule rho", "Beta schedule alpha",
    "Beta schedule beta", "Eta", "Clip skip", "Denoising", "Initial noise multiplier", "Extra noise", "Hires upscaler",
    "Cond. Image Mask Weight", "VAE", "Styles", "UniPC Order", "Face restore", "Token merging ratio", "Token merging ratio high-res",
    "Always discard next-to-last sigma", "SGM noise multiplier", "Refiner checkpoint", "Refiner switch at", "RNG source", "FP8 mode",
    "Size",
)  # fmt: skip
"""A1111 1.10's axes in the order of its drop-down. Later ones have `Skip Early CFG` after `Schedule rho` (its pull request 16282)."""
_TXT2IMG = frozenset({"Hires steps", "Hires sampler", "Hires upscaler"})
_IMG2IMG = frozenset({"Image CFG Scale", "Cond. Image Mask Weight"})
TXT2IMG_AXES = tuple(name for name in _AXES if name not in _IMG2IMG)
IMG2IMG_AXES = tuple(name for name in _AXES if name not in _TXT2IMG)
"""The drop-downs of the two routes: numbers count in these."""
_HERE: tuple[str, ...] = get_args(AxisType)
_LISTED = frozenset(
    {"Sampler", "Hires sampler", "Checkpoint name", "Schedule type", "Hires upscaler", "VAE", "Styles", "RNG source",
     "Always discard next-to-last sigma", "SGM noise multiplier", "Refiner checkpoint", "FP8 mode", "Face restore"}
)  # fmt: skip
"""Axes whose values A1111 takes from the list beside the text, unless `csv_mode` says otherwise."""

ARGUMENTS: dict[str, tuple[str, Any]] = {
    **{
        f"{axis}_{name}": (f"{axis.upper()} {words}", value)
        for axis in "xyz"
        for name, words, value in (
            ("type", "type", "Nothing"),
            ("values", "values", ""),
            ("values_dropdown", "values", []),
        )
    },
    "draw_legend": ("Draw legend", True),
    "include_lone_images": ("Include Sub Images", False),
    "include_sub_grids": ("Include Sub Grids", False),
    "no_fixed_seeds": ("Keep -1 for seeds", False),
    "vary_seeds_x": ("Vary seeds for X", False),
    "vary_seeds_y": ("Vary seeds for Y", False),
    "vary_seeds_z": ("Vary seeds for Z", False),
    "margin_size": ("Grid margins (px)", 0),
    "csv_mode": ("Use text inputs instead of dropdowns", False),
}
"""What stands at each place of `script_args`, A1111's label of it, and what it is where the list ends earlier."""
_SWITCHES = ("draw_legend", "include_lone_images", "include_sub_grids", "no_fixed_seeds", "csv_mode")


@dataclass(frozen=True)
class PlotCall:
    """A call of the script, understood: fields of a `Plot`, and whether the answer has the pictures beside their sheet."""

    plot: dict[str, Any]
    with_pictures: bool
    warnings: list[str] = field(default_factory=list)


def is_plot(name: str | None) -> bool:
    """Whether a `script_name` is that of the script that is there."""
    return bool(name) and str(name).strip().casefold() == PLOT


def plot_call(arguments: Sequence[Any], axes: Sequence[str]) -> PlotCall:
    """Understand `script_args` with the drop-down `axes` of the route. Raises `InvalidRequest` naming the argument at fault."""
    if len(arguments) > len(ARGUMENTS):
        raise InvalidRequest(
            f"script_args: there are {len(arguments)}; {PLOT} takes {len(ARGUMENTS)} at most: {', '.join(ARGUMENTS)}.",
            field="script_args",
        )
    given = {name: value for name, value in zip(ARGUMENTS, arguments, strict=False) if value is not None}
    asked = {name: default for name, (_, default) in ARGUMENTS.items()} | given
    on = {name: _switch(name, asked[name]) for name in _SWITCHES}
    for axis in "xyz":
        if _switch(f"vary_seeds_{axis}", asked[f"vary_seeds_{axis}"]):
            raise _impossible(f"vary_seeds_{axis}", "seeds are varied by an axis of type Seed here; send false")
    plot: dict[str, Any] = {
        "legend": on["draw_legend"],
        "random_seeds": on["no_fixed_seeds"],
        "margin": asked["margin_size"],
    }
    for axis in "xyz":
        kind = _axis(f"{axis}_type", asked[f"{axis}_type"], axes)
        text, listed = asked[f"{axis}_values"], asked[f"{axis}_values_dropdown"]
        plot[f"{axis}_type"] = kind
        plot[f"{axis}_values"] = _line(listed if listed and kind in _LISTED and not on["csv_mode"] else text)
    warnings = ["include_sub_grids was ignored: the sheets of Z stand beside each other in one."]
    return PlotCall(plot, on["include_lone_images"], warnings if on["include_sub_grids"] else [])


def script_info() -> list[dict[str, Any]]:
    """A1111's description of its scripts: one entry for each route."""
    routes = ((False, TXT2IMG_AXES), (True, IMG2IMG_AXES))
    return [
        {
            "name": PLOT,
            "is_alwayson": False,
            "is_img2img": img2img,
            "args": [_argument(name, axes) for name in ARGUMENTS],
        }
        for img2img, axes in routes
    ]


def _argument(name: str, axes: Sequence[str]) -> dict[str, Any]:
    label, value = ARGUMENTS[name]
    bounds = (0, next(rule.le for rule in Plot.model_fields["margin"].metadata if hasattr(rule, "le")), 2)
    minimum, maximum, step = bounds if name == "margin_size" else (None, None, None)
    choices = list(axes) if name.endswith("_type") else None
    return {"label": label, "value": value, "minimum": minimum, "maximum": maximum, "step": step, "choices": choices}


def _axis(name: str, value: Any, axes: Sequence[str]) -> str:
    """The type of an axis by its number among `axes`, or by its label in any spelling of its letters."""
    text = str(value).strip()
    if isinstance(value, int | float) or text.isdecimal():
        number = float(value)
        if isinstance(value, bool) or number not in range(len(axes)):
            raise _impossible(name, f"there is no axis {value!r}; numbers go from 0 to {len(axes) - 1}", _HERE)
        text = axes[int(number)]
    label = next((label for label in _HERE if label.casefold() == text.casefold()), "" if text else _HERE[0])
    if not label:
        raise _impossible(name, f"an axis {text!r} is not available in this version", _HERE)
    return label


def _switch(name: str, value: Any) -> bool:
    known: dict[Any, bool] = {True: True, False: False, "true": True, "false": False}
    key = value.strip().casefold() if isinstance(value, str) else value
    if not isinstance(key, str | int | float) or key not in known:
        raise _impossible(name, f"{value!r} is neither true nor false")
    return known[key]


def _line(values: Any) -> str:
    """Values as one line of text: a list becomes a line of a CSV file, as the values are read."""
    if not isinstance(values, list):
        return str(values)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([str(value) for value in values])
    return line.getvalue()


def _impossible(name: str, why: str, choices: Sequence[str] = ()) -> InvalidRequest:
    place = list(ARGUMENTS).index(name)
    listed = f" Choose from {', '.join(choices)}." if choices else ""
    return InvalidRequest(
        f"script_args[{place}] ({name}): {why}.{listed}", field=f"script_args.{name}", choices=tuple(choices)
    )
