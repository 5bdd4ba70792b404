"""A hypernetwork of AUTOMATIC1111 as tensors under plain names.

The pickled file is a dictionary. Its whole-number keys are widths of what an attention layer reads, each with the state of two modules, for keys and for
values; beside them stand `layer_structure`, `activation_func`, `activate_output` and notes. A module's state holds its linear layers and their
normalisations under their places in a row (`linear.0.weight`), where activations and dropout take places too; the first files had `linear1`, `linear2`.

What comes out has `768.k.linear.0.weight`, `768.k.norm.0.bias` and so on, layers counted one by one, and the rest as JSON in the metadata.
`families/hypernetwork_signature.py` reads it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from torch import Tensor

from studio.errors import DamagedFile
from studio.families.hypernetwork_signature import HALVES, METADATA

_PLACE = re.compile(r"linear\.(\d{1,4})\.(weight|bias)")
_OLD = {"linear1": "linear.0", "linear2": "linear.1"}
_NOTES = (
    "layer_structure",
    "activation_func",
    "activate_output",
    "is_layer_norm",
    "name",
    "step",
    "sd_checkpoint",
    "sd_checkpoint_name",
)
"""What is kept. Dropout is not: it does nothing but in training."""
_DEFAULTS = {"activation_func": "linear", "activate_output": True}
"""What A1111 takes where a file says nothing."""


def is_hypernetwork(data: dict[Any, Any]) -> bool:
    """Whether a dictionary has widths with a pair of modules each."""
    return any(isinstance(key, int) for key in data) and all(
        isinstance(modules, list | tuple) and len(modules) == 2 and all(isinstance(module, dict) for module in modules)
        for key, modules in data.items()
        if isinstance(key, int)
    )


def hypernetwork_tensors(data: dict[Any, Any], name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of what `is_hypernetwork`. Raises `DamagedFile`, calling the file `name`, for a key that fits no layer."""
    tensors: dict[str, Tensor] = {}
    for width, modules in data.items():
        if isinstance(width, int):
            for half, module in zip(HALVES, modules, strict=True):
                tensors |= {f"{width}.{half}.{key}": value for key, value in _layers(module, name).items()}
    notes = {key: data[key] for key in _NOTES if isinstance(data.get(key), str | int | float | list)}
    return tensors, {METADATA: json.dumps({**_DEFAULTS, **notes})}


def _layers(module: dict[Any, Any], name: str) -> dict[str, Tensor]:
    """A module's tensors as `linear.0.weight`, `norm.0.weight` …: a matrix is a linear layer, a vector for a weight the normalisation behind it."""
    parts: dict[int, dict[str, Tensor]] = {}
    for key, value in module.items():
        first, dot, rest = str(key).partition(".")
        place = _PLACE.fullmatch(_OLD.get(first, first) + dot + rest)
        if place is None or not isinstance(value, Tensor):
            raise DamagedFile(f"{name} is no hypernetwork that is known: it holds {str(key)[:80]!r}.")
        parts.setdefault(int(place[1]), {})[place[2]] = value
    found: dict[str, Tensor] = {}
    count = 0
    for _, part in sorted(parts.items()):
        weight = part.get("weight")
        if weight is None or weight.dim() not in (1, 2) or (weight.dim() == 1 and count == 0):
            raise DamagedFile(f"{name} is no hypernetwork that is known: a layer of it has no weights that fit.")
        count += weight.dim() == 2
        kind = "linear" if weight.dim() == 2 else "norm"
        found |= {f"{kind}.{count - 1}.{key}": value for key, value in part.items()}
    return found
