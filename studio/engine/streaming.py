"""Weights that wait in the machine's own memory and come to the device for as long as they are needed: a whole network, or a U-Net's blocks.

They are copied at every coming and never back, as nothing changes them there. A U-Net whose blocks come when they are called (also known as
sequential offload) needs the least memory and takes many times as long as one that is there: the last thing to try before a job fails. Nothing is
computed in another way, so pictures stay the same.

Each copy waits for the card, as the weights lie in ordinary memory: only pinned memory is copied beside its work, and as much of that as a checkpoint
takes would be locked away from everything else, on a machine that may be short of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module


def blocks(unet: Module) -> list[Module]:
    """What comes and goes as a whole: every resnet, transformer and resampler. What is left are a few small layers at both ends."""
    sections: list[Any] = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc]
    parts = (part for section in sections for part in section.children())
    return list(chain.from_iterable(part if isinstance(part, torch.nn.ModuleList) else [part] for part in parts))


class Guest:
    """The weights of a module, all of which wait outside of `device`; `but` are left alone."""

    def __init__(self, module: Module, device: torch.device, but: Iterable[Tensor] = ()) -> None:
        others = {id(weight) for weight in but}
        weights = (weight for weight in _weights(module) if id(weight) not in others)
        self._outside = [(weight, weight.data) for weight in weights]
        self._device = device

    def come(self) -> None:
        """Bring them. When the device runs out of memory some are there: let them leave."""
        with torch.inference_mode(mode=False):  # weights that were made in it could take no LoRA afterwards
            for weight, outside in self._outside:
                weight.data = _moved(outside, self._device)

    def leave(self) -> None:
        """Back to where they were; what has got another number format on the device keeps it."""
        with torch.inference_mode(mode=False):
            for weight, outside in self._outside:
                weight.data = outside.to(weight.dtype)


class StreamedUNet:
    """A U-Net that waits outside: while it is there its small layers are, and of its `blocks` only the one that is called."""

    def __init__(self, unet: Module, device: torch.device) -> None:
        self._blocks = [(block, Guest(block, device)) for block in blocks(unet)]
        self._rest = Guest(unet, device, chain.from_iterable(_weights(block) for block, _ in self._blocks))
        self._hooks: list[Any] = []

    def come(self) -> None:
        """Bring the small layers, and each block for as long as it is called."""
        self._rest.come()
        for block, guest in self._blocks:
            self._hooks += [
                block.register_forward_pre_hook(lambda *_, guest=guest: guest.come()),
                block.register_forward_hook(lambda *_, guest=guest: guest.leave(), always_call=True),
            ]

    def leave(self) -> None:
        """Put everything outside, also a block whose coming failed."""
        while self._hooks:
            self._hooks.pop().remove()
        for guest in (self._rest, *(guest for _, guest in self._blocks)):
            guest.leave()


def _weights(module: Module) -> Iterable[Tensor]:
    return chain(module.parameters(), module.buffers())


def _moved(weight: Tensor, device: torch.device) -> Tensor:
    return weight.to(device)
