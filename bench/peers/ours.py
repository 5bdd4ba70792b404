"""The program itself, as its worker runs it; and the bare calls of the modules it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.peers.forwards import Forwards
from bench.peers.requests import ENGINE, Models, asked
from bench.peers.tensors import as_array, probe, probe_added, start_noise
from bench.peers.workloads import Job
from studio.engine.hardware import CompileName, DeviceName, PrecisionName
from studio.engine.loading import LoadedModel
from studio.engine.lora import LoraWeights
from studio.engine.runner import DiffusersEngine
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Progress


class Ours:
    """`DiffusersEngine.run` with everything a user gets: prompts taken apart, a preview at every step, PNGs with their infotext."""

    def __init__(
        self,
        root: Path,
        device: DeviceName = "cpu",
        precision: PrecisionName = "auto",
        *,
        compiled: CompileName = "off",
    ) -> None:
        self._models = Models(root)
        changed = {"device": device, "precision": precision, "compiled": compiled}
        self._engine = DiffusersEngine(**{**ENGINE, **changed})
        self._forwards = Forwards() if device == "cpu" else None  # a card works while the processor goes on

    @property
    def dtype(self) -> str:
        """See `Contender`."""
        return self._engine.info().dtype

    @property
    def model_seconds(self) -> float | None:
        """See `Contender`."""
        return self._forwards and self._forwards.seconds

    def paint(self, job: Job) -> list[bytes]:
        """See `Contender`."""
        events = list(self._engine.run(asked(job, self._models), CancelToken()))
        assert all(event.previews for event in events if isinstance(event, Progress))
        return [event.png for event in events if isinstance(event, ImageReady)]

    def unet(self, job: Job) -> np.ndarray[Any, Any]:
        """See `Contender`."""
        request = asked(job, self._models)
        loaded = self._engine.load(request.model)  # outside of inference mode: weights made in it could not take a LoRA
        if loaded.offload:
            raise RuntimeError("the card has no room for it beside the others: name fewer --contenders")
        loaded.loras.apply([LoraWeights.of(use) for use in request.loras])
        model = loaded.model
        dtype, width = next(model.unet.parameters()).dtype, int(model.unet.config.cross_attention_dim)
        side = job.side // model.latent.scale
        with torch.inference_mode():  # also for what is made here: a compiled graph tells such tensors from others
            latents, timesteps, states = (
                each.to(model.unet.device) for each in probe(model.latent.channels, side, width)
            )
            added = probe_added(model.unet, job.side)
            return as_array(
                model.unet(latents.to(dtype), timesteps, states.to(dtype), added_cond_kwargs=added, return_dict=False)[
                    0
                ]
            )

    def bare(self, job: Job) -> None:
        """Only the model calls of `job`, on the modules that `paint` uses; see `Floor`."""
        _bare_calls(self._engine.load(self._models.checkpoint(job.model)).model, job)


class Floor(Ours):
    """The model calls of a job and nothing between them: both prompts once, a U-Net pass with guidance a step, one VAE decode a picture.

    Text is not read, noise not drawn, no LoRA switched; a checkpoint is loaded when first asked for and kept. A mark to measure by, not the
    least that is possible: each call computes all of the model, also keys and values of the prompts, which are the same at every step and which
    the engine computes once (`TextProjections`). The program can so be below it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._loaded: dict[str, LoadedModel] = {}

    def paint(self, job: Job) -> list[bytes]:
        """See `Contender`."""
        if job.model not in self._loaded:
            self._loaded[job.model] = self._engine.load(self._models.checkpoint(job.model)).model
        _bare_calls(self._loaded[job.model], job)
        return []


@torch.inference_mode()
def _bare_calls(model: LoadedModel, job: Job) -> None:
    """On a card they are handed over, not waited for."""
    device = model.unet.device
    dtype, vae_dtype = (next(part.parameters()).dtype for part in (model.unet, model.vae))
    tokens = torch.full((1, 77), 49407, device=device)
    for _ in ("prompt", "negative prompt"):
        for encoder in model.text_encoders:
            encoder(input_ids=tokens)
    side, rows = job.side // model.latent.scale, 2 * job.batch_size
    latents = start_noise(range(rows), model.latent.channels, side).to(device)
    states = torch.zeros(rows, 77, int(model.unet.config.cross_attention_dim), dtype=dtype, device=device)
    added = probe_added(model.unet, job.side, rows)
    for _ in job.batches:
        for _ in range(job.steps):
            timesteps = torch.full((rows,), 500.0, device=device)
            model.unet(latents.to(dtype), timesteps, states, added_cond_kwargs=added, return_dict=False)
        for row in latents[: job.batch_size]:
            model.vae.decode(row[None].to(vae_dtype), return_dict=False)
