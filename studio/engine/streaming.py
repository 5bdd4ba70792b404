"""A U-Net that does not fit the device beside what it works on: its blocks come when they are called, and go again.

Also known as sequential offload. The weights wait in the machine's own memory and are copied at every call, which takes many times as long as
computing with them: the last thing to try before a job fails. Nothing is computed in another way, so pictures stay the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module


@contextmanager
def streamed(unet: Module, device: torch.device) -> Iterator[None]:
    """While this lasts, of the `blocks` of the U-Net only the one that is called is on `device`; before and after all of it is there.

    Nobody may change its weights meanwhile. On an error it is left on the device as well as may be: what does not fit stays outside, and is
    brought in by the next job that makes room.
    """
    guests = [_Guest(block, device) for block in blocks(unet)]
    try:
        for guest in guests:
            guest.watch()
        yield
    finally:
        for guest in guests:
            guest.stay()


def blocks(unet: Module) -> list[Module]:
    """What comes and goes as a whole: every resnet, transformer and resampler. What is left, a few small layers at both ends, stays."""
    sections: list[Any] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc]
    parts = (part for section in sections for part in section.children())
    return list(chain.from_iterable(part if isinstance(part, torch.nn.ModuleList) else [part] for part in parts))


class _Guest:
    """One block, and the weights that it has outside of the device."""

    def __init__(self, block: Module, device: torch.device) -> None:
        self._block = block
        self._device = device
        self._hooks: list[Any] = []
        self._outside: list[tuple[torch.nn.Parameter, Tensor]] = []

    def watch(self) -> None:
        """Put its weights outside, and bring them for as long as it is called."""
        self._outside = [(weight, _moved(weight.data, torch.device("cpu"))) for weight in self._block.parameters()]
        self._leave()
        self._hooks = [
            self._block.register_forward_pre_hook(lambda *_: self._come()),
            self._block.register_forward_hook(lambda *_: self._leave(), always_call=True),
        ]

    def stay(self) -> None:
        """Bring its weights, to stay."""
        for hook in self._hooks:
            hook.remove()
        self._come()
        self._hooks, self._outside = [], []

    def _come(self) -> None:
        with torch.inference_mode(mode=False):  # weights that were made in it could take no LoRA afterwards
            for weight, outside in self._outside:
                weight.data = _moved(outside, self._device)

    def _leave(self) -> None:
        for weight, outside in self._outside:
            weight.data = outside


def _moved(weight: Tensor, device: torch.device) -> Tensor:
    return weight.to(device)
