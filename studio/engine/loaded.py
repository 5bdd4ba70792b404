"""`LoadedCheckpoint`: a checkpoint in memory, with what belongs to it and lives as long."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.engine.conditioning import Conditioner
from studio.engine.eight_bit import PLAIN, Storage, half_bytes
from studio.engine.embeddings import EmbeddingVectors
from studio.engine.failure import is_out_of_memory
from studio.engine.fingerprint import Fingerprint
from studio.engine.hypernetwork import HypernetworkFiles
from studio.engine.loading import LoadedModel
from studio.engine.loading_schedule import zero_terminal
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.offload import Offload, Stage
from studio.engine.text_files import TextEncoders
from studio.samplers.noise_table import NoiseTable
from studio.schema.models import ModelInfo, PredictionType
from studio.schema.request import AskedPrediction, NoiseSchedule


@dataclass(eq=False)
class LoadedCheckpoint:
    """A checkpoint with what belongs to it and lives as long.

    What of it waits outside of its device, as its `offload` says, comes when it is its turn on the `stage`. `notes` are what the user has not been
    told of it.
    """

    model: LoadedModel
    loras: LoraStack
    embeddings: EmbeddingVectors
    conditioner: Conditioner
    hypernetworks: HypernetworkFiles
    table: NoiseTable
    fingerprint: Fingerprint
    text: TextEncoders
    stage: Stage
    storage: Storage = PLAIN
    offload: Offload = Offload.NONE
    notes: tuple[str, ...] = ()
    parked: bool = False
    """Whether all of it waits outside until the next job, because this one ran out of memory."""

    @property
    def bytes(self) -> int:
        """Memory of its weights on its device, with what is kept beside them for LoRAs."""
        kind = self.stage.device.type
        beside = sum(map(half_bytes, self._modules)) + self.loras.beside if kind == "cpu" else 0
        weights = (weight for module in self._modules for weight in module.parameters())
        return beside + sum(int(weight.nbytes) for weight in weights if weight.device.type == kind)

    @property
    def visitor(self) -> int:
        """Bytes of the largest that comes at a time, if it waits outside of its device."""
        if self.offload == Offload.NONE:
            return 0
        unet = (self.model.unet,) if self.offload == Offload.NETWORKS else ()
        return max(map(_bytes, (unet, (self.model.vae,), self.model.text_encoders)))

    @property
    def mapped_bytes(self) -> int:
        """How much of that lies in a mapped file: the system calls that memory available, though painting needs it."""
        modules = (self.model.unet, self.model.vae, *self.model.text_encoders) if self.model.mapped else ()
        return sum(weight.nbytes for module in modules for weight in module.parameters() if not weight.is_mkldnn)

    def read_with(self, text_encoders: Sequence[ModelInfo], loras: Sequence[LoraWeights]) -> None:
        """Make it what a pass needs: these text encoders in place of its own, and exactly these LoRAs merged into the weights.

        Raises what `TextEncoders.use` and `LoraStack.apply` raise.
        """
        if self.text.wants(text_encoders):
            self.loras.apply(())
            self.text.use(text_encoders)
            self.loras = LoraStack(self.model, self.stage.device, self.loras.keeps)
        self.loras.apply(loras)

    def park(self) -> None:
        """Put outside what lies on the device, all of it, until `gather`."""
        if self.offload == Offload.NONE and not self.parked:
            self.parked = True
            for module in self._modules:
                module.to("cpu")

    def gather(self) -> None:
        """Bring in again what was parked; if there is too little memory for it, it stays where it is."""
        if not self.parked:
            return
        try:
            for module in self._modules:
                module.to(self.stage.device)
            self.parked = False
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            for module in self._modules:
                module.to("cpu")

    def told(self) -> tuple[str, ...]:
        """Its `notes`, once."""
        notes, self.notes = self.notes, ()
        return notes

    def text_key(self) -> Hashable:
        """Equal exactly while prompts are read by the same weights; for caches of encoded prompts."""
        return self.text.key, self.loras.text_key()

    def release(self) -> None:
        """Let go of everything heavy, also for those who still hold this object; it cannot be painted with any more."""
        del self.model, self.loras, self.embeddings, self.conditioner, self.text

    @property
    def _modules(self) -> tuple[torch.nn.Module, ...]:
        return self.model.unet, self.model.vae, *self.model.text_encoders, *self.text.waiting

    def table_for(self, schedule: NoiseSchedule, *, downcast: bool = False) -> NoiseTable:
        """The noise levels to paint with: the checkpoint's own, or these moved so that they end in pure noise; `downcast` in half precision."""
        if schedule == "Default" and not downcast:
            return self.table
        alphas = self.model.alphas_cumprod
        return noise_table(self.model, alphas if schedule == "Default" else zero_terminal(alphas), downcast=downcast)

    def prediction(self, asked: AskedPrediction) -> PredictionType:
        """What the U-Net is taken to predict: what was asked for, or what the checkpoint says."""
        return self.model.prediction_type if asked == "Automatic" else asked


def noise_table(model: LoadedModel, alphas: Tensor, *, downcast: bool = False) -> NoiseTable:
    """The noise levels of cumulative `alphas` [T] for the model; `downcast` in half precision."""
    make = NoiseTable.downcast if downcast else NoiseTable.from_alphas_cumprod
    return make(alphas, sdxl=model.family.latent_space == "sdxl")


def _bytes(modules: Iterable[torch.nn.Module]) -> int:
    return sum(int(weight.nbytes) for module in modules for weight in module.parameters())
