"""Offload: what of a checkpoint waits in the machine's own memory because its device has too little, and comes when it works.

| offload | on the device | needs room for | costs |
|---|---|---|---|
| NONE | everything, always | all weights, and decoding beside them | nothing |
| NETWORKS | the network that works | the U-Net and what it works on | copying each network once a pass |
| BLOCKS | the block of the U-Net that works | what is worked on | copying the U-Net at every model call |

Nothing is computed in another way or on another device, so pictures stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum

import torch
from torch.nn import Module

from studio.engine.failure import is_out_of_memory
from studio.engine.hardware import Hardware
from studio.engine.streaming import Guest, StreamedUNet
from studio.families.signature import Part

WORKING_MEMORY = 3 * 2**30
"""Bytes that stay free for painting and decoding beside what lies on the device."""
UNET_ROOM = 2**30
"""Bytes beside a U-Net that is alone on the device: decoding comes after it. An estimate for a picture of 1024 x 1024 pixels in 16 bits; where
it is not enough, painting goes on block by block."""


class Offload(IntEnum):
    """How much waits outside of the device; more of it needs less memory there, and more time."""

    NONE = 0
    NETWORKS = 1
    BLOCKS = 2


def chosen(sizes: Mapping[Part, int], free: int, visitor: int = 0) -> Offload:
    """The least offload that a checkpoint can be painted with.

    Args:
        sizes: bytes of each network, as it is stored.
        free: bytes of the device that can be had.
        visitor: of these, what a network of another checkpoint may need meanwhile.
    """
    if sum(sizes.values()) + visitor + WORKING_MEMORY <= free:
        return Offload.NONE
    return Offload.NETWORKS if sizes["unet"] + UNET_ROOM <= free else Offload.BLOCKS


def offload_notes(offload: Offload, name: str, device: str) -> tuple[str, ...]:
    """What the user is told of a checkpoint that was loaded so; nothing of one that fits."""
    if offload == Offload.NONE:
        return ()
    if offload == Offload.NETWORKS:
        return (f"{name} is too large for {device} as a whole: only the part that works is there, which takes longer",)
    return (f"Not even the U-Net of {name} fits {device}: it comes block by block, which takes many times as long",)


class Placing:
    """Where one checkpoint is to lie, a `Place`: as much of it outside of the device as `chosen` says, or nothing of one that is to be `whole`."""

    def __init__(self, hardware: Hardware, visitor: int = 0, *, whole: bool = False) -> None:
        self._hardware = hardware
        self._visitor = visitor
        self._whole = whole
        self._least = Offload.NONE
        self.offload = Offload.NONE
        """What was chosen."""

    def __call__(self, sizes: Mapping[Part, int]) -> torch.device:
        """The device, or the CPU where networks are to wait."""
        self.offload = self._least
        if self._hardware.has_own_memory and not self._whole:
            self.offload = max(self._least, chosen(sizes, self._hardware.free_memory(), self._visitor))
        return self._hardware.device if self.offload == Offload.NONE else torch.device("cpu")

    def once_more(self, error: Exception) -> bool:
        """Whether it may be loaded again after this `error`, with more of it outside."""
        if self._whole or self._hardware.device.type == "cpu" or self.offload or not is_out_of_memory(error):
            return False
        self._least = Offload.NETWORKS
        return True


class Stage:
    """Which of the networks that wait outside are on the device: those whose turn it is. What lies there anyway is left alone.

    Args:
        device: where they work.
        free: gives memory back that those which left had.
    """

    def __init__(self, device: torch.device, free: Callable[[], None] = lambda: None) -> None:
        self.device = device
        self._free = free
        self._there: list[Guest | StreamedUNet] = []

    @contextmanager
    def of(self, *networks: Module, streamed: bool = False) -> Iterator[None]:
        """While this lasts, it is the turn of `networks`; whose turn it was before waits meanwhile, and comes back after it.

        With `streamed`, they are U-Nets whose blocks come one by one. Nobody may change weights of those whose turn it is, but for their format.
        """
        before, self._there = self._there, self._leaving()
        try:
            self.change(*networks, streamed=streamed)
            del networks  # somebody may have to put them away meanwhile
            yield
        finally:
            self._leaving()
            self._there = before
            self._come()

    def change(self, *networks: Module, streamed: bool = False) -> None:
        """Let the turn be that of `networks`, or of nobody, instead; it ends when it would have ended."""
        self._there = self._leaving()
        waiting = [network for network in networks if self.is_outside(network)]
        self._there = [
            StreamedUNet(network, self.device) if streamed else Guest(network, self.device) for network in waiting
        ]
        self._come()

    def is_outside(self, network: Module) -> bool:
        """Whether it waits in the machine's memory, while the device has another."""
        return self.device.type != "cpu" and next(network.parameters()).device.type == "cpu"

    def _come(self) -> None:
        for guest in self._there:
            guest.come()

    def _leaving(self) -> list[Guest | StreamedUNet]:
        """Let all go; nobody is left."""
        for guest in self._there:
            guest.leave()
        if self._there:
            self._free()
        return []
