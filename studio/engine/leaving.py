"""Leaving a batch in the middle of something long: what codes or enlarges pictures asks again and again whether that is still wanted.

Between two denoising steps a job looks at its `CancelToken`. What takes as long as a step, or longer, is left by an exception instead, which
ends where batches are painted. It is raised between two operations of torch, seen by a mode of this thread. So nothing is hung on networks that
other jobs and threads use, and it is the same for every kind of autoencoder, whole and in tiles. A call of torch becomes some
microseconds longer, while the shortest convolution of a decoder takes hundreds.

A card is handed its work ahead: there it is asked while that is done, and what was handed over is computed to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.overrides import TorchFunctionMode

from studio.schema.engine import CancelMode, CancelToken

Ask = Callable[[], None]
"""Raises `Left` if what is being made is not wanted any more."""


class Left(Exception):
    """What is being made is not wanted any more. Ends within the engine: no user is ever told of it."""


def unwanted(cancel: CancelToken, *modes: CancelMode) -> Ask:
    """What raises `Left` once one of these modes is asked for, by default any."""

    def ask() -> None:
        if cancel.mode in (modes or ("skip", "interrupt")):
            raise Left

    return ask


def between(ask: Ask | None) -> AbstractContextManager[object]:
    """While this lasts, `ask` is called before every operation of torch in this thread. Not for a generator, whose caller would be asked too."""
    return nullcontext() if ask is None else _Between(ask)


class _Between(TorchFunctionMode):
    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._ask()
        return func(*args, **(kwargs or {}))
