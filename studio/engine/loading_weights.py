"""Weights from .safetensors files into modules that were built without any: exact accounting, no surprises.

Every parameter must be in the file with its shape before a byte is read; every tensor read is checked for NaN and infinity
and copied, so that nothing on disk can change a loaded model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open

from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.families.layout import Source

M = TypeVar("M", bound=torch.nn.Module)
Chooser = Callable[[Iterable[str]], Mapping[str, Source]]
"""Parameter names of a module -> where each stands in the file."""
_LISTED = 3


class Weights:
    """One or more .safetensors files as one table of tensors; only headers are read until `tensor` is called.

    Messages call a file by its name, or by its path below `below`.
    Raises `NotFound` for a file that is gone and `DamagedFile` for one that is cut off or malformed.
    """

    def __init__(self, paths: Iterable[Path], below: Path | None = None) -> None:
        self.paths = tuple(paths)
        self.name = _called(self.paths[0], below)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.header: dict[str, Any] = {}
        self._files: dict[str, Any] = {}
        for path in self.paths:
            file = _opened(path, _called(path, below))
            for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                part = file.get_slice(key)
                self.shapes[key] = tuple(part.get_shape())
                self.header[key] = {"dtype": part.get_dtype(), "shape": list(self.shapes[key])}
                self._files[key] = file
            self.header["__metadata__"] = {**self.header.get("__metadata__", {}), **(file.metadata() or {})}

    def tensor(self, source: Source) -> torch.Tensor:
        """The tensor at `source`, as stored; may be a view of the mapped file."""
        try:
            if source.third is None:
                tensor: torch.Tensor = self._files[source.key].get_tensor(source.key)
            else:
                rows = self.shapes[source.key][0] // 3
                tensor = self._files[source.key].get_slice(source.key)[source.third * rows : (source.third + 1) * rows]
        except SafetensorError as error:
            raise DamagedFile(f"{self.name} is damaged: {source.key} cannot be read ({error}).") from None
        return tensor.T if source.transposed else tensor

    def shape(self, source: Source) -> tuple[int, ...]:
        """Shape of `tensor(source)`, without reading it."""
        shape = self.shapes[source.key]
        if source.third is not None:
            shape = (shape[0] // 3, *shape[1:])
        return shape[::-1] if source.transposed else shape


def empty(make: Callable[[], M], what: str) -> M:
    """The module that `make` builds, with shapes but no memory for its parameters.

    Raises `IncompatibleFile` when the configuration makes no sense to the library; `what` names it in the message.
    """
    try:
        with init_empty_weights(include_buffers=False):
            return make()
    except (
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        ZeroDivisionError,
    ) as error:
        raise IncompatibleFile(f"The {what} cannot be built from its configuration: {error}.") from error


def fill(
    module: M, weights: Weights, choose: Chooser, device: torch.device, dtype: torch.dtype, what: str
) -> tuple[M, frozenset[str]]:
    """Read all parameters of an `empty` module onto `device` as `dtype`; eval mode, no gradients.

    `choose` gives for the module's parameter names where they stand in the file. Returns the module and the keys used.
    Raises `IncompatibleFile` naming missing or misshapen weights, `DamagedFile` for NaN or infinite ones.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    sources = choose(wanted)
    check_fit(weights, sources, wanted, what)
    state: dict[str, torch.Tensor] = {}
    for key, source in sources.items():
        tensor = weights.tensor(source)
        if not tensor.is_floating_point():
            raise IncompatibleFile(
                f"{weights.name} is quantised ({source.key} is {tensor.dtype}), which is not supported."
            )
        state[key] = tensor.to(device=device, dtype=dtype, copy=True).reshape(wanted[key]).contiguous()
    check_finite(weights.name, state)
    module.load_state_dict(state, assign=True)
    return module.to(device).eval().requires_grad_(False), frozenset(source.key for source in sources.values())


def check_fit(
    weights: Weights, sources: Mapping[str, Source], wanted: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raise `IncompatibleFile` unless every wanted weight is in the file with its shape (1x1 convolutions may be flat)."""
    missing = [source.key for source in sources.values() if source.key not in weights.shapes]
    if missing:
        raise IncompatibleFile(f"{weights.name} lacks {len(missing)} weights of the {what}: {listed(missing)}.")
    wrong = [
        f"{source.key} is {list(weights.shape(source))}, expected {list(wanted[key])}"
        for key, source in sources.items()
        if _flat(weights.shape(source)) != _flat(wanted[key])
    ]
    if wrong:
        raise IncompatibleFile(
            f"{weights.name} has {len(wrong)} weights of the {what} in other shapes: {listed(wrong)}."
        )


def check_finite(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise `DamagedFile` if a tensor holds NaN or infinity; `name` is the file's.

    A sum costs a tenth of a look at every value and cannot be finite when a value is not. A half precision sum may
    overflow for sound weights, so those whose sum is not finite are looked at closely.
    """
    if not tensors:
        return
    sums = torch.stack([tensor.sum().float() for tensor in tensors.values()]).isfinite().tolist()
    for (key, tensor), sound in zip(tensors.items(), sums, strict=True):
        if not sound and not bool(tensor.isfinite().all()):
            raise DamagedFile(f"{name} is damaged: {key} holds values that are no finite numbers in {tensor.dtype}.")


def listed(items: list[str]) -> str:
    """The first few of `items`, and that there are more."""
    return ", ".join(items[:_LISTED]) + (" …" if len(items) > _LISTED else "")


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def _called(path: Path, below: Path | None) -> str:
    return path.name if below is None else path.relative_to(below).as_posix()


def _opened(path: Path, name: str) -> Any:
    if not path.is_file():
        raise NotFound(f"{name} is not there any more.")
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{name} is damaged or not complete: {error}.") from None
