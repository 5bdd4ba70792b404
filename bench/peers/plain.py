"""diffusers' own pipeline as its documentation shows it, in one number format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from bench.peers.tensors import as_array, probe, start_noise
from bench.peers.workloads import CHECKPOINTS, GUIDANCE, LORA_FILES, SPROUT, Job
from studio.paths import REPOSITORY


class Plain:
    """`StableDiffusionPipeline`: holds one checkpoint, another one is loaded in its place; LoRAs are adapters that are switched.

    Its scheduler is the one that equals Euler on Uniform, its latents are those of `start_noise`. Pictures are saved as PNG by Pillow.
    """

    def __init__(self, root: Path, dtype: str) -> None:
        self._root = root
        self._dtype = getattr(torch, dtype)
        self.dtype = dtype
        self.model_seconds = None
        self._name = ""
        self._pipeline: Any = None

    def paint(self, job: Job) -> list[bytes]:
        """See `Contender`."""
        pipeline = self._loaded(job)
        channels, side = pipeline.unet.config.in_channels, job.side // pipeline.vae_scale_factor
        pictures = []
        for seeds in job.batches:
            made = pipeline(
                job.prompt, negative_prompt=job.negative, num_inference_steps=job.steps, guidance_scale=GUIDANCE, height=job.side,
                width=job.side, num_images_per_prompt=len(seeds), latents=start_noise(seeds, channels, side).to(self._dtype),
            )  # fmt: skip
            pictures += [_png(picture) for picture in made.images]
        return pictures

    def unet(self, job: Job) -> np.ndarray[Any, Any]:
        """See `Contender`."""
        pipeline = self._loaded(job)
        unet = pipeline.unet
        latents, timesteps, states = probe(
            unet.config.in_channels, job.side // pipeline.vae_scale_factor, unet.config.cross_attention_dim
        )
        with torch.no_grad():
            return as_array(unet(latents.to(self._dtype), timesteps, states.to(self._dtype), return_dict=False)[0])

    def _loaded(self, job: Job) -> Any:
        if self._name != job.model:
            self._pipeline, self._name = None, ""  # so that two are never in memory
            self._pipeline, self._name = self._load(job.model), job.model
        if job.lora:
            if job.lora not in self._pipeline.get_list_adapters().get("unet", ()):
                self._pipeline.load_lora_weights(
                    self._root / LORA_FILES / f"{job.lora}.safetensors", adapter_name=job.lora
                )
            self._pipeline.set_adapters(job.lora)
        return self._pipeline

    def _load(self, name: str) -> Any:
        folder = (REPOSITORY if name == SPROUT else self._root) / CHECKPOINTS / name
        pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=self._dtype, local_files_only=True)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
