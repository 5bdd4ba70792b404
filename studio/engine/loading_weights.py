"""Weights from .safetensors files into modules that were built without any: exact accounting, no surprises.

Every parameter must be in the file with its shape before a byte is read; every tensor read is checked for NaN and infinity
and copied, so that nothing on disk can change a loaded model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from transformers.initialization import no_init_weights

from studio.engine.eight_bit import PLAIN, Storage, expect_eight_bit
from studio.engine.loading_file import FLOATS, FileState, TensorFile
from studio.engine.loading_room import Room, laid_out
from studio.engine.packing import expect_packed
from studio.errors import DamagedFile, IncompatibleFile
from studio.families.layout import Source

M = TypeVar("M", bound=torch.nn.Module)
Chooser = Callable[[Iterable[str]], Mapping[str, Source]]
"""Parameter names of a module -> where each stands in the file."""
_LISTED = 3


class Weights:
    """One or more .safetensors files as one table of tensors; only headers are read until a tensor is asked for.

    Messages call a file by its name, or by its path below `below`.
    Raises `NotFound` for a file that is gone and `DamagedFile` for one that is cut off or malformed.
    """

    def __init__(self, paths: Iterable[Path], below: Path | None = None) -> None:
        self.paths = tuple(paths)
        self.name = _called(self.paths[0], below)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.header: dict[str, Any] = {}
        self._files: dict[str, TensorFile] = {}
        for path in self.paths:
            file = TensorFile(path, _called(path, below))
            self.header |= file.entries
            self.header["__metadata__"] = {**self.header.get("__metadata__", {}), **file.metadata}
            self.shapes |= {key: tuple(entry["shape"]) for key, entry in file.entries.items()}
            self._files |= dict.fromkeys(file.entries, file)

    def tensor(self, source: Source) -> torch.Tensor:
        """The tensor at `source`, in the number format that it is stored in."""
        shape, dtype = self.shape(source), self._files[source.key].dtype(source.key)
        found = torch.empty(shape, dtype=dtype)
        self.read(source, found)
        return found

    def read(self, source: Source, out: torch.Tensor) -> torch.Tensor:
        """Fill `out` with the tensor at `source`; it has as many elements, on the CPU, in any number format.

        Returns a sum as `TensorFile.read` does.
        """
        rows = self.shapes[source.key][0] // 3 if source.third is not None else 0
        shape = self.shape(source)
        if source.transposed:
            stored = torch.empty(shape[::-1], dtype=out.dtype)
            total = self._files[source.key].read(source.key, stored, rows * (source.third or 0))
            out.copy_(stored.T)
            return total
        return self._files[source.key].read(source.key, out.view(shape), rows * (source.third or 0))

    def position(self, source: Source) -> tuple[int, int]:
        """Which file it is in, and where: what comes later on disk is greater."""
        return self.paths.index(self._files[source.key].path), self.header[source.key]["data_offsets"][0]

    @property
    def states(self) -> tuple[FileState, ...]:
        """What would tell if the files were others."""
        return tuple(file.state for file in dict.fromkeys(self._files.values()))

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
        with init_empty_weights(include_buffers=False), no_init_weights():
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


class Filling:
    """The parameters of one `empty` module, and where each stands in a file; from there, or from a copy, they come into the module.

    Args:
        choose: gives for the module's parameter names where they stand in the file.
        dtype, layout: of the parameters; `layout` is that of weights of convolutions.
        what: what messages call the module.
        packs: whether large convolutions expect packed weights (see `packing`).
        storage: how weights are kept; those in eight bits are read from the file, never from a copy.

    Raises `IncompatibleFile` naming missing or misshapen weights.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        weights: Weights,
        choose: Chooser,
        dtype: torch.dtype,
        what: str,
        layout: torch.memory_format = torch.contiguous_format,
        packs: bool = False,
        storage: Storage = PLAIN,
    ) -> None:
        self._module, self.weights, self.dtype, self._layout = module, weights, dtype, layout
        self.shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        self.sources = choose(self.shapes)
        check_fit(weights, self.sources, self.shapes, what)
        self._packing = expect_packed(module, layout) if packs else {}
        self._rounding = expect_eight_bit(module, halves=storage.halves) if storage.eight_bit else {}
        self.keys = sorted(self.sources, key=lambda key: weights.position(self.sources[key]))
        """The parameters' names in the order in which a disk likes to read them."""

    @property
    def used(self) -> frozenset[str]:
        """The keys of the file that the parameters come from."""
        return frozenset(source.key for source in self.sources.values())

    @property
    def bytes(self) -> int:
        """What the parameters take once they are loaded, without copies that are kept beside them."""
        count = {key: math.prod(self.shapes[key]) for key in self.keys}
        return sum(number * (1 if key in self._rounding else self.dtype.itemsize) for key, number in count.items())

    def layout(self, key: str) -> torch.memory_format:
        """How a parameter lies in memory; before it is packed with channels last, which is what oneDNN starts from."""
        return torch.channels_last if key in self._packing else self._layout

    def laid_out(self, key: str, memory: torch.Tensor) -> torch.Tensor:
        """The beginning of `memory` as a parameter."""
        return laid_out(memory.view(self.dtype), self.shapes[key], self.layout(key))

    def read(self, key: str, place: torch.Tensor) -> None:
        """Fill `place`, on the CPU, with a parameter. Raises `DamagedFile` for NaN and infinity."""
        total = self.weights.read(self.sources[key], place)
        _check(self.weights.name, key, place, total)

    def from_file(self, device: torch.device) -> Any:
        """The module with all parameters read onto `device`; eval mode, no gradients. Raises `DamagedFile` as `read`."""
        makers = {**{key: layer.packed for key, layer in self._packing.items()}, **self._rounding}
        total = sum(Room.size(self.shapes[key], self.dtype) for key in self.keys if key not in makers)
        room = Room(total if device.type == "cpu" else 0)
        # What is made into something else is read into the same place one after the other, what is rounded exactly.
        read_as = torch.float32 if self._rounding else self.dtype
        table = torch.empty(max((math.prod(self.shapes[key]) for key in makers), default=0), dtype=read_as)
        state: dict[str, torch.Tensor] = {}
        for key in self.keys:
            maker = makers.get(key)
            place = (
                laid_out(table, self.shapes[key], self.layout(key))
                if maker
                else room.take(self.shapes[key], self.dtype, self._layout)
            )
            self.read(key, place)
            state[key] = (maker(place) if maker else place).to(device)
        return self._with(state).to(device)

    def from_copy(self, state: Mapping[str, torch.Tensor], release: Callable[[torch.Tensor], None]) -> Any:
        """The module with the parameters of `state`, which lie as `layout` says; eval mode, no gradients.

        Large convolutions pack theirs when they are first used, and call `release` with what they had before.
        """
        for layer in self._packing.values():
            layer.release = release
        return self._with(state)

    def _with(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        self._module.load_state_dict(state, assign=True)
        return self._module.eval().requires_grad_(False)


def check_fit(
    weights: Weights, sources: Mapping[str, Source], wanted: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Raise `IncompatibleFile` unless every wanted weight is in the file with its shape (1x1 convolutions may be flat)."""
    missing = [source.key for source in sources.values() if source.key not in weights.shapes]
    if missing:
        raise IncompatibleFile(f"{weights.name} lacks {len(missing)} weights of the {what}: {listed(missing)}.")
    quantised = [source.key for source in sources.values() if weights.header[source.key]["dtype"] not in FLOATS]
    if quantised:
        kind = weights.header[quantised[0]]["dtype"]
        raise IncompatibleFile(f"{weights.name} is quantised ({quantised[0]} is {kind}), which is not supported.")
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
    """Raise `DamagedFile` if a tensor holds NaN or infinity; `name` is the file's."""
    for key, tensor in tensors.items():
        _check(name, key, tensor, tensor.sum().float())


def _check(name: str, key: str, tensor: torch.Tensor, total: torch.Tensor) -> None:
    """`check_finite` of one tensor with a sum of its values.

    A sum costs a tenth of a look at every value and cannot be finite when a value is not. A half precision sum may
    overflow for sound weights, so those whose sum is not finite are looked at closely.
    """
    if not bool(total.isfinite()) and not bool(tensor.isfinite().all()):
        raise DamagedFile(f"{name} is damaged: {key} holds values that are no finite numbers in {tensor.dtype}.")


def listed(items: list[str]) -> str:
    """The first few of `items`, and that there are more."""
    return ", ".join(items[:_LISTED]) + (" …" if len(items) > _LISTED else "")


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def _called(path: Path, below: Path | None) -> str:
    return path.name if below is None else path.relative_to(below).as_posix()
