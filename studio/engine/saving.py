"""Saving memory: what a job gives up, in time but not in pictures, when its device has too little."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from studio.engine.hardware import Hardware
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.offload import Offload

DECODED_CHANNELS = 800
"""Feature maps at full size that an autoencoder of Stable Diffusion's shape holds at once while it decodes, roughly."""
MOVING = "Too little memory: once more, moving what does not work out of the device"
_SAID = {
    Offload.NETWORKS: MOVING,
    Offload.BLOCKS: "Too little memory: once more, bringing the U-Net block by block, which takes long",
}


@dataclass
class Saving:
    """What one job does to need less memory; it does more each time that memory runs out.

    A checkpoint that was loaded with some offload has that much at least, whatever the job does.
    """

    begun: Offload = Offload.NONE
    """That of the job's checkpoint: doing as much again would not help."""
    split: bool = False
    """Positive and negative prompt go through the U-Net one after the other."""
    tiled: bool = False
    """Pictures are decoded in overlapping tiles, which changes them slightly: `Backend` of the infotext says so."""
    offload: Offload = Offload.NONE
    """What waits in the machine's own memory while it does not work."""

    @staticmethod
    def of(loaded: LoadedCheckpoint) -> Saving:
        """That of a job which begins with `loaded`. If there was no room for all of it to begin with, that is so for its other checkpoints too."""
        saving = Saving(loaded.offload)
        saving.heed(loaded)
        return saving

    def heed(self, loaded: LoadedCheckpoint) -> None:
        """Take it for done already that `loaded` waits outside, where it had to be put there before it could paint."""
        if loaded.parked:
            self.offload = max(self.offload, Offload.NETWORKS)

    def more(self, device: torch.device) -> str:
        """Save more from now on; what is done, for the user, or nothing when there is no more to do."""
        if not self.split:
            self.split = self.tiled = True
            return "Too little memory: once more, prompts one after the other, decoding in tiles"
        done = max(self.begun, self.offload)
        if device.type == "cpu" or done == Offload.BLOCKS:
            return ""
        self.offload = Offload(done + 1)
        return _SAID[self.offload]

    def decodes_in_tiles(self, hardware: Hardware, width: int, height: int) -> bool:
        """Whether a picture of so many pixels is decoded in tiles: after memory ran out, or where it would."""
        wanted = width * height * DECODED_CHANNELS * hardware.vae_dtype.itemsize
        return self.tiled or wanted > hardware.free_memory()

    def only(self, needed: Literal["unet", "text"], loaded: LoadedCheckpoint) -> AbstractContextManager[None]:
        """While this lasts, the U-Net or the text encoders work, and are on the device if they wait outside of it; see `Stage.of`."""
        self._parked(loaded)
        if needed == "text":
            return loaded.stage.of(*loaded.model.text_encoders)
        return loaded.stage.of(loaded.model.unet, streamed=self._streams(loaded))

    def hand_over(self, loaded: LoadedCheckpoint) -> None:
        """Let the U-Net of another checkpoint work instead, within `only`."""
        self._parked(loaded)
        loaded.stage.change(loaded.model.unet, streamed=self._streams(loaded))

    def _streams(self, loaded: LoadedCheckpoint) -> bool:
        return Offload.BLOCKS in (self.offload, loaded.offload)

    def _parked(self, loaded: LoadedCheckpoint) -> None:
        if self.offload != Offload.NONE:
            loaded.park()
