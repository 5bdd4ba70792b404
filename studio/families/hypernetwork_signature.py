"""What a hypernetwork is, from the header of its .safetensors file alone.

    768.k.linear.0.weight [1536, 768]     width of what an attention layer reads; for keys (k) or values (v); layer; a linear layer
    768.k.norm.0.weight   [1536]          the normalisation behind that layer, where there is one
    metadata "hypernetwork"               JSON with A1111's names: activation_func, activate_output, and notes

`python launch.py convert` makes such files of A1111's .pt (`conversion/hypernetworks.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from studio.families.header import Header, Shapes, metadata, shapes
from studio.schema.models import Family

METADATA = "hypernetwork"
HALVES = ("k", "v")
LINEAR = "linear"
ACTIVATIONS = (
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "celu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "logsigmoid", "mish", "relu6", "selu", "silu", "softplus", "softshrink", "softsign", "tanhshrink",
)  # fmt: skip
"""What may stand behind a layer, by A1111's names: those of torch in small letters, and its own "swish", which is hardswish."""
MAX_LAYERS = 20
_KEY = re.compile(
    r"(?P<width>[1-9]\d{0,4})\.(?P<half>[kv])\.(?P<kind>linear|norm)\.(?P<layer>\d{1,2})\.(?P<part>weight|bias)"
)
_FAMILIES: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}


@dataclass(frozen=True)
class HypernetworkSignature:
    """What a hypernetwork file is. `problem` says why it cannot be used, None when it can; `widths` is empty for what is none.

    `activation` is one of `ACTIVATIONS`; `activates_output` says whether it follows the last layer too; `layers` counts linear layers.
    """

    family: Family = "unknown"
    widths: tuple[int, ...] = ()
    layers: int = 0
    activation: str = LINEAR
    activates_output: bool = True
    problem: str | None = None


def looks_like_one(found: Shapes) -> bool:
    """Whether all names are those of a hypernetwork's layers."""
    return bool(found) and all(_KEY.fullmatch(key) for key in found)


def describe_hypernetwork(header: Header) -> HypernetworkSignature:
    """Judge any .safetensors file of the hypernetworks folder by the parsed JSON of its header."""
    found = shapes(header)
    keys = [_KEY.fullmatch(key) for key in found]
    if not found or None in keys:
        first = ", ".join(sorted(found)[:3])[:200] or "nothing"
        return HypernetworkSignature(problem=f"The file is no hypernetwork; it begins with {first}.")
    widths = tuple(sorted({int(key["width"]) for key in keys if key}))
    layers = 1 + max(int(key["layer"]) for key in keys if key)
    problem = None
    if layers > MAX_LAYERS:
        problem = f"It has {layers} layers; at most {MAX_LAYERS} are possible."
    for width in widths:
        for half in HALVES:
            problem = problem or _half_problem(found, width, half, layers)
    notes = _notes(metadata(header))
    activation = str(notes.get("activation_func") or LINEAR).lower()
    if activation not in ACTIVATIONS:
        problem = problem or f"Its activation {activation[:40]!r} is not known; {', '.join(ACTIVATIONS)} are."
    named = {_FAMILIES[width] for width in widths if width in _FAMILIES}
    family: Family = named.pop() if len(named) == 1 else "unknown"
    return HypernetworkSignature(family, widths, layers, activation, notes.get("activate_output") is not False, problem)


def layer_key(width: int, half: str, kind: str, layer: int) -> str:
    """What stands before `.weight` and `.bias` of a layer."""
    return f"{width}.{half}.{kind}.{layer}"


def _half_problem(found: Shapes, width: int, half: str, layers: int) -> str | None:
    """Whether the layers follow each other from `width` to `width`."""
    into = width
    for layer in range(layers):
        linear, norm = layer_key(width, half, "linear", layer), layer_key(width, half, "norm", layer)
        shape = found.get(f"{linear}.weight", ())
        if len(shape) != 2 or shape[1] != into or 0 in shape:
            return (
                f"{linear}.weight does not follow what is before it: {list(shape)}, where [n, {into}] was looked for."
            )
        into = shape[0]
        for key in (f"{linear}.bias", f"{norm}.weight", f"{norm}.bias"):
            if key in found and found[key] != (into,):
                return f"{key} does not fit its layer: {list(found[key])}, where [{into}] was looked for."
        if f"{norm}.bias" in found and f"{norm}.weight" not in found:
            return f"{norm}.weight is missing."
    return None if into == width else f"The last layer of {width}.{half} gives {into} numbers, not {width}."


def _notes(found: dict[str, str]) -> dict[str, object]:
    try:
        notes = json.loads(found.get(METADATA, "{}"))
    except (ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}
