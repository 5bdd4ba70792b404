"""A plot in generation text, under the keys of A1111's script X/Y/Z plot. They stand in the text of the sheet, which otherwise is that of its
first picture; the pictures themselves say nothing of it. `Plot legend`, `Plot margin` and `Plot random seeds` are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from studio.infotext.quote import quote
from studio.infotext.unused import shortened
from studio.plots import AXES, fixed_values, plot_type
from studio.schema.plot import AxisType, Plot
from studio.schema.resolved import PlotPlan

SCRIPT = "X/Y/Z plot"
OPTION_KEYS = {"Plot legend": "legend", "Plot margin": "margin", "Plot random seeds": "random_seeds"}


def with_plot(text: str, plan: PlotPlan) -> str:
    """The text of a sheet: that of its first picture, and what the plot is, before the version."""
    asked, pairs = plan.asked, {"Script": SCRIPT}
    for axis in AXES:
        if (kind := plot_type(asked, axis)) != "Nothing":
            values = getattr(asked, f"{axis}_values")
            fixed = fixed_values(plan, axis)
            pairs |= {f"{axis.upper()} Type": kind, f"{axis.upper()} Values": values}
            pairs |= {f"Fixed {axis.upper()} Values": fixed} if fixed else {}
    usual = Plot()
    for key, field in OPTION_KEYS.items():
        if (value := getattr(asked, field)) != getattr(usual, field):
            pairs[key] = value
    told = ", ".join(f"{key}: {quote(value)}" for key, value in pairs.items())
    before, version, after = text.rpartition(", Version: ")
    return f"{before}, {told}{version}{after}" if version else f"{text}, {told}"


def plot_fields(pairs: Mapping[str, str]) -> tuple[dict[str, Any], list[str], set[str]]:
    """Fields of the part `plot`, notes about what is not known here, and the keys that were read; all empty without a plot."""
    if pairs.get("Script", "").strip().casefold() != SCRIPT.casefold():
        return {}, [], set()
    fields: dict[str, Any] = {}
    notes, used = [], set[str]()
    known = {kind.casefold(): kind for kind in get_args(AxisType)}
    for axis in AXES:
        name, keys = axis.upper(), {f"{axis.upper()} Type", f"{axis.upper()} Values", f"Fixed {axis.upper()} Values"}
        kind = pairs.get(f"{name} Type", "Nothing").strip()
        if kind.casefold() not in known:
            notes.append(f"No plot can have {shortened(kind)!r} on an axis here; {name} was left out.")
            continue
        used |= keys
        values = pairs.get(f"Fixed {name} Values") or pairs.get(f"{name} Values", "")
        fields |= {f"{axis}_type": known[kind.casefold()], f"{axis}_values": values}
    return fields, notes, used | ({"Script"} if any(pairs.get(f"{axis.upper()} Type") for axis in AXES) else set())
