"""ComfyUI from a checkout, through the functions that its standard graph calls. This process has its Python, not the program's."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.peers.contender import MissingDependency
from bench.peers.tensors import as_array, probe, start_noise
from bench.peers.workloads import GUIDANCE, LORA_FILES, SINGLE_FILES, Job

SCALE, CHANNELS, WIDTH = 8, 4, 768
"""Pixels per latent, latent channels and width of the text states of SD 1.x, the only shapes it is asked for."""


class ComfyUI:
    """Loader, two text encodes, KSampler, VAE decode and PNG, with `--cpu` and its own number formats.

    Like its graph, which remembers the outputs of the last run, it keeps a checkpoint, a LoRA and encoded prompts until others are asked
    for. Three things are made equal, so that pictures can be compared: noise is drawn one picture at a time, it starts at noise * sigma, and
    timesteps are not rounded to whole ones.
    """

    def __init__(self, root: Path, checkout: Path) -> None:
        self._root = root
        self.model_seconds = None
        self._comfy, self._nodes = _import(checkout)
        self._checkpoint: tuple[str, Any] = ("", None)
        self._patched: tuple[tuple[str, str], Any] = (("", ""), None)
        self._encoded: tuple[tuple[str, ...], Any] = ((), None)

    @property
    def dtype(self) -> str:
        """See `Contender`."""
        return str(self._checkpoint[1][0].model.get_dtype()).removeprefix("torch.")

    @torch.inference_mode()
    def paint(self, job: Job) -> list[bytes]:
        """See `Contender`."""
        model, clip, vae = self._loaded(job)
        positive, negative = self._conditions(job, clip)
        pictures = []
        for seeds in job.batches:
            latents = {"samples": torch.zeros(len(seeds), CHANNELS, job.side // SCALE, job.side // SCALE)}
            self._comfy.sample.prepare_noise = lambda *_, seeds=seeds: _noise(seeds, job.side // SCALE, model)
            (done,) = self._nodes.KSampler().sample(
                model, seeds[0], job.steps, GUIDANCE, "euler", "normal", positive, negative, latents
            )
            (images,) = self._nodes.VAEDecode().decode(vae, done)
            pictures += [_png(image) for image in images]
        return pictures

    @torch.inference_mode()
    def unet(self, job: Job) -> np.ndarray[Any, Any]:
        """See `Contender`."""
        model = self._loaded(job)[0]
        self._comfy.model_management.load_models_gpu([model])
        network, dtype = model.model.diffusion_model, model.model.get_dtype()
        latents, timesteps, states = probe(CHANNELS, job.side // SCALE, WIDTH)
        return as_array(network(latents.to(dtype), timesteps, context=states.to(dtype)))

    def _loaded(self, job: Job) -> Any:
        """Model, CLIP and VAE with the job's LoRA."""
        if self._checkpoint[0] != job.model:
            self._checkpoint = ("", None)
            path = self._root / SINGLE_FILES / f"{job.model}.safetensors"
            parts = self._comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]
            _interpolate_timesteps(parts[0].get_model_object("model_sampling"))
            self._checkpoint = (job.model, parts)
        if not job.lora:
            return self._checkpoint[1]
        key = (job.model, job.lora)
        if self._patched[0] != key:
            model, clip, vae = self._checkpoint[1]
            path = self._root / LORA_FILES / f"{job.lora}.safetensors"
            lora = self._comfy.utils.load_torch_file(str(path), safe_load=True)
            self._patched = (key, (*self._comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0), vae))
        return self._patched[1]

    def _conditions(self, job: Job, clip: Any) -> Any:
        key = (job.model, job.lora, job.prompt, job.negative)
        if self._encoded[0] != key:
            encode = self._nodes.CLIPTextEncode().encode
            self._encoded = (key, [encode(clip, text)[0] for text in (job.prompt, job.negative)])
        return self._encoded[1]


def _import(checkout: Path) -> tuple[Any, Any]:
    """The modules `comfy` and `nodes`. Raises `MissingDependency`, naming the package that is not there."""
    sys.path.insert(0, str(checkout))
    sys.argv = ["main.py", "--cpu"]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        for part in ("model_management", "sample", "sd", "utils"):
            importlib.import_module(f"comfy.{part}")
        comfy, nodes = importlib.import_module("comfy"), importlib.import_module("nodes")
    except ImportError as error:
        raise MissingDependency(
            f"ComfyUI in {checkout} needs the Python package {error.name or error!s}, which {sys.executable} does not have. "
            f"Make an environment in {checkout / '.venv'} and install ComfyUI's requirements.txt there."
        ) from error
    logging.getLogger().setLevel(logging.WARNING)
    comfy.utils.PROGRESS_BAR_ENABLED = False
    return comfy, nodes


def _noise(seeds: list[int], side: int, model: Any) -> torch.Tensor:
    """Start noise, less what it multiplies by beyond sigma: sqrt(1 + sigma²)."""
    sigma = float(model.get_model_object("model_sampling").sigma_max)
    return start_noise(seeds, CHANNELS, side).mul(sigma / (1 + sigma**2) ** 0.5)


def _interpolate_timesteps(sampling: Any) -> None:
    """Let it tell the U-Net fractional timesteps, linear in log sigma, instead of the nearest whole ones."""
    logs = sampling.log_sigmas.double().numpy()

    def timestep(sigma: torch.Tensor) -> torch.Tensor:
        found = np.interp(np.log(sigma.double().numpy()), logs, np.arange(len(logs)))
        return torch.from_numpy(np.asarray(found)).float()

    sampling.timestep = timestep


def _png(image: torch.Tensor) -> bytes:
    """[H, W, 3] in 0 to 1, compressed as its node SaveImage does."""
    pixels = np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
