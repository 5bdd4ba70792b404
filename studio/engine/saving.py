"""Saving memory: what a job gives up, in time but not in pictures, when its device has too little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from studio.engine.hardware import Hardware
from studio.engine.keeper import LoadedCheckpoint
from studio.engine.streaming import streamed

DECODED_CHANNELS = 800
"""Feature maps at full size that an autoencoder of Stable Diffusion's shape holds at once while it decodes, roughly."""


@dataclass
class Saving:
    """What one job does to need less memory; it does more each time that memory runs out."""

    split: bool = False
    """Positive and negative prompt go through the U-Net one after the other."""
    tiled: bool = False
    """Pictures are decoded in overlapping tiles, which changes them slightly: `Backend` of the infotext says so."""
    parked: bool = False
    """What does not work at the moment waits in the machine's own memory."""
    streamed: bool = False
    """And so does all of the U-Net but the block that works."""

    def more(self, device: torch.device) -> str:
        """Save more from now on; what is done, for the user, or nothing when there is no more to do."""
        if not self.split:
            self.split = self.tiled = True
            return "Too little memory: once more, prompts one after the other, decoding in tiles"
        if not self.parked and device.type != "cpu":
            self.parked = True
            return "Too little memory: once more, moving what does not work out of the device"
        if not self.streamed and device.type != "cpu":
            self.streamed = True
            return "Too little memory: once more, bringing the U-Net block by block, which takes long"
        return ""

    def decodes_in_tiles(self, hardware: Hardware, width: int, height: int) -> bool:
        """Whether a picture of so many pixels is decoded in tiles: after memory ran out, or where it would."""
        wanted = width * height * DECODED_CHANNELS * hardware.vae_dtype.itemsize
        return self.tiled or wanted > hardware.free_memory()

    @contextmanager
    def only(self, needed: str, loaded: LoadedCheckpoint, hardware: Hardware) -> Iterator[None]:
        """While this lasts, of the checkpoint's networks only the `needed` one, "unet" or "vae", is on the device, if networks are parked."""
        others = _others(needed, loaded) if self.parked else []
        _move(others, torch.device("cpu"), hardware)
        flowing = self.streamed and needed == "unet"
        try:
            with streamed(loaded.model.unet, hardware.device) if flowing else nullcontext():
                yield
        finally:
            _move(others, hardware.device, hardware)


def _others(needed: str, loaded: LoadedCheckpoint) -> list[torch.nn.Module]:
    model = loaded.model
    return [model.vae if needed == "unet" else model.unet, *model.text_encoders]


def _move(modules: Sequence[torch.nn.Module], device: torch.device, hardware: Hardware) -> None:
    for module in modules:
        module.to(device)
    if modules:
        hardware.free()
