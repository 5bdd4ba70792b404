"""The checkpoint that is trained further, loaded by the product's own loader, and what is given back of it."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from studio.engine.hardware import Hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LoadedModel
from studio.engine.lora import LoraStack
from studio.errors import IncompatibleFile
from studio.library import Library
from studio.paths import Paths
from studio.schema.models import ModelInfo
from studio.training.context import TrainingContext


@dataclass
class Base:
    """The loaded checkpoint. `identity` is the SHA-256 of its file, or the id of its folder: it names the weights, whatever they are called."""

    info: ModelInfo
    identity: str
    loaded: LoadedCheckpoint
    hardware: Hardware

    @property
    def model(self) -> LoadedModel:
        """Its modules and facts."""
        return self.loaded.model

    @property
    def unet(self) -> UNet2DConditionModel:
        """What learns, or is frozen."""
        return self.loaded.model.unet

    def give_back(self, *modules: torch.nn.Module) -> None:
        """Free the memory of modules that are not needed any more; they cannot be used after that."""
        for module in modules:
            module.to("meta")
        self.loaded.loras = LoraStack(self.model)  # the old one knows the old weights
        gc.collect()
        self.hardware.free()


def find_base(paths: Paths, name: str) -> tuple[ModelInfo, str]:
    """The checkpoint called `name` and its identity, hashed now if need be.

    Raises `UnknownModel`, and `IncompatibleFile` for one that cannot be used or is for inpainting or instructions.
    """
    library = Library(paths)
    info = library.checkpoint(name)
    if info.problem:
        raise IncompatibleFile(f"{info.name} cannot be used: {info.problem}", field="model")
    if info.inpaint or info.edit:
        raise IncompatibleFile(
            f"{info.name} is made for {'inpainting' if info.inpaint else 'instructions about pictures'}; training needs a checkpoint that paints whole pictures.",
            field="model",
        )
    for file in library.unhashed_files():
        if file.path == Path(info.path) or Path(info.path) in file.path.parents:
            library.hash_file(file)
    info = library.checkpoint(name)
    return info, info.sha256 or info.model_id or ""


def load_base(context: TrainingContext, name: str, *, frozen_unet: bool) -> Base:
    """Load it on the run's device. A frozen U-Net is kept in the run's number format, one that learns in fp32; the autoencoder in fp32.

    Raises as `find_base` and `load_checkpoint` do.
    """
    info, identity = find_base(context.paths, name)
    short = torch.bfloat16 if context.config.precision == "bf16" and frozen_unet else torch.float32
    hardware = Hardware(context.device, short, torch.float32, "sdpa")
    return Base(info, identity, ModelKeeper(hardware, whole=True).checkpoint(info), hardware)
