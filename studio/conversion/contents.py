"""What of an opened file is a model, and under which names its tensors are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from studio.conversion.hypernetworks import hypernetwork_tensors, is_hypernetwork
from studio.conversion.unpickling import ParameterDict
from studio.errors import DamagedFile, IncompatibleFile

WRAPPERS = ("state_dict", "params_ema", "params")
"""Under which of its names a file keeps the model: checkpoints and old LoRAs; upscalers and face models, averaged weights before the last ones."""
EMBEDDING = "emb_params"
_VECTORS = "string_to_param"
_SHOWN = 80


@dataclass(frozen=True)
class Contents:
    """A model: its tensors by name, and what its metadata says."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def contents_of(data: object, name: str) -> Contents:
    """The model in what the file `name` held. What is no tensor (optimizer, counters, settings of the training) is left out.

    Raises `IncompatibleFile` where there is none, `DamagedFile` for one that cannot be right.
    """
    if not isinstance(data, dict):
        kind = "one tensor without a name" if isinstance(data, Tensor) else f"a {type(data).__name__}"
        raise IncompatibleFile(f"{name} holds no model: {kind}, where tensors by name are looked for.")
    if is_hypernetwork(data):
        return Contents(*hypernetwork_tensors(data, name))
    if _VECTORS in data:
        return Contents(_embedding(_named(data[_VECTORS]), name))
    wrapped = next((data[key] for key in WRAPPERS if isinstance(data.get(key), dict)), None)
    tensors = _named(data if wrapped is None else wrapped)
    if not tensors:
        listed = ", ".join(str(key)[:_SHOWN] for key in list(data)[:5])
        raise IncompatibleFile(f"{name} holds no model: no tensors by name. It has {listed or 'nothing'}.")
    if wrapped is None and len(tensors) == 1:
        return Contents(_embedding(tensors, name))
    return Contents(tensors)


def _named(data: object) -> dict[str, Tensor]:
    """The tensors directly inside, by name."""
    if isinstance(data, ParameterDict):
        data = data.parameters
    if not isinstance(data, Mapping):
        return {}
    items: Mapping[Any, Any] = data
    return {key: value.detach() for key, value in items.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _embedding(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Of an embedding with one set of vectors, whatever word they were trained as."""
    if len(tensors) != 1:
        raise DamagedFile(f"{name} is no embedding that is known: it has {len(tensors)} sets of vectors, not one.")
    return {EMBEDDING: next(iter(tensors.values()))}
