"""diffusers' own pipeline as its documentation shows it, in one number format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

from bench.peers.tensors import as_array, probe, probe_added, start_noise
from bench.peers.workloads import CARD_SDXL, CHECKPOINTS, GUIDANCE, LORA_FILES, SPROUT, Job
from studio.engine.hardware import DeviceName, PrecisionName, choose_hardware
from studio.paths import REPOSITORY


class Plain:
    """`StableDiffusionPipeline`, or that of SDXL: holds one checkpoint, another one is loaded in its place; LoRAs are adapters that are switched.

    Its scheduler is the one that equals Euler on Uniform, its latents are those of `start_noise`. Pictures are saved as PNG by Pillow.
    `precision` as for the program, whose choice `auto` is; in float32, the reference, a card rounds nothing to TF32.
    """

    def __init__(self, root: Path, precision: PrecisionName, device: DeviceName = "cpu") -> None:
        self._root = root
        hardware = choose_hardware(device, precision=precision)
        self._device, self._dtype, self.dtype = hardware.device, hardware.dtype, hardware.dtype_label
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
                width=job.side, num_images_per_prompt=len(seeds), latents=start_noise(seeds, channels, side).to(self._device, self._dtype),
            )  # fmt: skip
            pictures += [_png(picture) for picture in made.images]
        return pictures

    def unet(self, job: Job) -> np.ndarray[Any, Any]:
        """See `Contender`."""
        pipeline = self._loaded(job)
        unet = pipeline.unet
        side, dtype = job.side // pipeline.vae_scale_factor, self._dtype
        latents, timesteps, states = (
            each.to(self._device) for each in probe(unet.config.in_channels, side, unet.config.cross_attention_dim)
        )
        added = probe_added(unet, job.side)
        with torch.no_grad():
            return as_array(
                unet(latents.to(dtype), timesteps, states.to(dtype), added_cond_kwargs=added, return_dict=False)[0]
            )

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
        if name == CARD_SDXL:
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                folder, dtype=self._dtype, local_files_only=True, add_watermarker=False
            )
        else:
            pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=self._dtype, local_files_only=True)
        pipeline.to(self._device)
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
