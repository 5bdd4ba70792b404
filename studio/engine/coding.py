"""Pictures to latents and back within one job: which autoencoder does it for a checkpoint, and whether in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from studio.engine.canvas import Canvas
from studio.engine.decode import Decoder
from studio.engine.enlarging import UpscalerModel, Work
from studio.engine.hardware import Hardware
from studio.engine.hires import second_pass
from studio.engine.keeper import ModelKeeper
from studio.engine.leaving import Ask
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading import LatentFacts, LoadedVae
from studio.engine.refiner import OTHER_UPSCALERS, check_latents
from studio.engine.saving import Saving
from studio.engine.source import SourceLatents, source_latents, together
from studio.engine.upscale import Enlarged, begun, enlarged
from studio.families.tiny_vae import Half
from studio.schema.models import ModelInfo
from studio.schema.resolved import HiresPlan, ResolvedRequest
from studio.schema.source import LATENT_UPSCALE


class Coding:
    """The autoencoders of one job.

    Args:
        keeper: has them.
        hardware: where they work.
        saving: how the job saves memory; grows when it runs out.
        job: its checkpoints; others go when a picture would have to go through in tiles because of them.
        ask: raises `Left` when the batch is not wanted any more; asked while pictures are coded and enlarged.
    """

    def __init__(
        self,
        keeper: ModelKeeper,
        hardware: Hardware,
        saving: Saving,
        job: Sequence[ModelInfo],
        ask: Ask | None = None,
    ) -> None:
        self.saving = saving
        self._keeper = keeper
        self._hardware = hardware
        self._job = job
        self.ask = ask
        self.marks: set[str] = set()
        """What the job's pictures differ in, from the first on that does; see `LoadedVae`."""

    def vae(self, half: Half, resolved: ResolvedRequest, loaded: LoadedCheckpoint) -> LoadedVae:
        """What decodes, or encodes, pictures of the checkpoint in this job. Raises as `ModelKeeper.vae` and `ModelKeeper.tiny_vae`."""
        tiny = resolved.tiny_decoder if half == "decoder" else resolved.tiny_encoder
        vae = self._keeper.tiny_vae(tiny, half, loaded) if tiny else self._keeper.vae(resolved.vae, loaded)
        return replace(vae, dtype=self._hardware.vae_dtype, marks=self.marks, ask=self.ask)

    def final(self, resolved: ResolvedRequest, loaded: LoadedCheckpoint) -> LoadedVae:
        """What decodes the job's finished pictures, of whichever checkpoint painted them. Raises as `vae`."""
        return self.vae("decoder", resolved.model_copy(update={"vae": resolved.final_vae}), loaded)

    def upscaler(self, info: ModelInfo) -> UpscalerModel:
        """The model of an upscaler. Raises as `ModelKeeper.upscaler`."""
        return self._keeper.upscaler(info).asking(self.ask)

    def source(self, loaded: LoadedCheckpoint, resolved: ResolvedRequest, begins: Sequence[Canvas]) -> SourceLatents:
        """The picture, or those, that a pass begins with, as latents of its checkpoint. Raises as `source_latents`."""
        shown = [canvas.picture.size for canvas in begins]
        if resolved.source and resolved.source.resize_mode == LATENT_UPSCALE:  # then the original is encoded as it is
            shown += [canvas.original.size for canvas in begins]
        encode = partial(
            source_latents,
            resolved=resolved,
            vae=self.vae("encoder", resolved, loaded),
            inpaint=loaded.model.inpaint,
            edit=loaded.model.edit,
            device=self._hardware.device,
            tiled=any(self.tiled(*size) for size in set(shown)),
        )
        with torch.inference_mode():
            return together([encode(canvas) for canvas in begins])

    def tile(self, resolved: ResolvedRequest, latents: Tensor, painter: LoadedCheckpoint) -> Image.Image:
        """The picture of a tile's latents [C, h, w]. Raises as `Decoder.picture`."""
        vae, tiled = self.vae("decoder", resolved, painter), self.tiled(resolved.width, resolved.height)
        decoder = Decoder(vae, tiled=tiled, wraps=resolved.tiling)
        with torch.inference_mode():
            return decoder.picture(latents)

    def enlarged(self, resolved: ResolvedRequest, x: Tensor, painter: LoadedCheckpoint) -> Work[Enlarged]:
        """What is between the passes of `resolved`, of the finished latents [B, C, h, w] of the first; see `studio.engine.upscale.enlarged`."""
        vae, tiled = self.vae("decoder", resolved, painter), self.tiled(resolved.width, resolved.height)
        return enlarged(x, _plan(resolved), vae, self.upscaler, tiled=tiled, wraps=resolved.tiling)

    def begun(
        self, resolved: ResolvedRequest, latent: LatentFacts, large: Enlarged, painter: LoadedCheckpoint
    ) -> Tensor:
        """The latents [B, C, h, w] that the second pass of `resolved` goes on from; see `studio.engine.upscale.begun`.

        `latent` says what those of the first pass mean: raises `IncompatibleFile` where such are handed over and mean something else to
        `painter`.
        """
        if isinstance(large, Tensor):
            check_latents(latent, painter.model, "hires.checkpoint", OTHER_UPSCALERS)
        plan, vae = _plan(resolved), self.vae("encoder", second_pass(resolved), painter)
        return begun(large, plan, vae, tiled=self.tiled(*plan.covering), wraps=resolved.tiling)

    def tiled(self, width: int, height: int) -> bool:
        """Whether a picture of so many pixels goes through an autoencoder in tiles: encoding takes no more than decoding.

        Checkpoints that the job does not need are put away before it comes to that.
        """
        tiled = self.saving.decodes_in_tiles(self._hardware, width, height)
        return tiled and not (self.spare() and not self.saving.decodes_in_tiles(self._hardware, width, height))

    def spare(self) -> bool:
        """Put away what is loaded and not of the job; whether there was anything."""
        return self._keeper.keep_only(self._job)


def _plan(resolved: ResolvedRequest) -> HiresPlan:
    assert resolved.hires is not None
    return resolved.hires
