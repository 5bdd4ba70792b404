"""A stand-in for a graphics card, as none is needed to run the tests: the processor computes, but memory is kept apart and is limited.

What is moved to `CARD`, or made there, is a copy that says it is there, and takes memory until nobody holds it. What is computed of it is there
too. Computing with tensors of both memories, or taking more than there is, fails as it does on a card. It is seen by calls of torch from Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from studio.engine.hardware import Hardware

CARD = torch.device("xpu", 0)
"""A device that is neither the processor nor CUDA, whose own calls are made nowhere."""
_MOVING = {"to", "cpu"}
_FREE = {
    "to",
    "cpu",
    "copy_",
    "__get__",
    "__set__",
    "equal",
    "_has_compatible_shallow_copy_type",
    "detach",
    "requires_grad_",
}
"""What may know both memories, or computes nothing."""


class Card(TorchFunctionMode):
    """Tensors know it while it is entered.

    Args:
        capacity: bytes of its memory.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.peak = 0
        self._there: dict[int, tuple[StorageWeakRef, int]] = {}
        self._most = 0

    @property
    def used(self) -> int:
        """Bytes that somebody holds."""
        self._there = {key: entry for key, entry in self._there.items() if not entry[0].expired()}
        return sum(size for _, size in self._there.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether it lies on the card."""
        entry = self._there.get(tensor.untyped_storage()._cdata)
        return entry is not None and not entry[0].expired()

    def _take(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self.holds(tensor) and not tensor.is_meta:
            storage = tensor.untyped_storage()
            self._most += storage.nbytes()
            if self._most > min(self.capacity, self.peak):  # it is not counted anew before that can matter
                self._most = self.used + storage.nbytes()
            if self._most > self.capacity:
                raise torch.OutOfMemoryError("XPU out of memory (stand-in)")
            self._there[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.peak = max(self.peak, self._most)
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks for every call."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if not self._there and name not in _MOVING and "device" not in kwargs:
            return func(*args, **kwargs)
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return CARD if self.holds(args[0]) else func(*args, **kwargs)
        if name in _MOVING:
            return self._moved(func, args, kwargs)
        given = _tensors((args, kwargs))
        there = [self.holds(tensor) for tensor in given]
        made_there = _is_card(kwargs.get("device"))
        if made_there:
            kwargs["device"] = None
        if name == "numpy" and any(there):
            raise TypeError("can't convert a tensor of the card to numpy")
        mixed = {on for tensor, on in zip(given, there, strict=True) if tensor.ndim and tensor.numel()}
        if len(mixed) > 1 and name not in _FREE:
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} was given two.")
        result = func(*args, **kwargs)
        if name not in _FREE and (made_there or any(there)) and not kwargs.get("out"):
            for tensor in _tensors(result):
                self._take(tensor)
        return result

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """`tensor.to(...)`: between the memories a copy, else what it is everywhere."""
        tensor, *rest = args
        if not isinstance(tensor, torch.Tensor):
            return func(*args, **kwargs)
        target = torch.device("cpu") if func.__name__ == "cpu" else kwargs.pop("device", None)
        plain: list[Any] = []
        for value in rest:
            if isinstance(value, torch.Tensor):
                target, value = (CARD if self.holds(value) else value.device), value.dtype
            if isinstance(value, torch.device | str):
                target = torch.device(value)
            elif isinstance(value, torch.dtype):
                plain.append(value)
        result: torch.Tensor = tensor.to(*plain, **kwargs) if plain or kwargs else tensor
        if tensor.is_meta or (target is not None and target.type == "meta"):
            return func(*args, **kwargs)
        source = self.holds(tensor)
        wanted = source if target is None else _is_card(target)
        if source != wanted and result is tensor:
            result = tensor.clone()
        return self._take(result) if wanted else result


def _tensors(value: Any) -> list[torch.Tensor]:
    """Those in `value`, which may be nested."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for each in value for tensor in _tensors(each)] if isinstance(value, list | tuple) else []


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == CARD.type


@dataclass(frozen=True)
class CardHardware(Hardware):
    """The choices for a `Card`."""

    card: Card | None = None

    def memory(self) -> int:
        """See `Hardware`."""
        assert self.card is not None
        return self.card.used

    def free_memory(self) -> int:
        """See `Hardware`."""
        assert self.card is not None
        return self.card.capacity - self.card.used

    def free(self) -> None:
        """See `Hardware`."""


@contextmanager
def card_of(capacity: int) -> Iterator[CardHardware]:
    """While this lasts there is a card with so much memory."""
    card = Card(capacity)
    with card:
        yield CardHardware(torch.device(CARD.type), torch.float32, torch.float32, "sdpa", card=card)
