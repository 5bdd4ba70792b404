"""Stage 2: draw or read the training pool once, encode it, tokenize its captions, and keep both as memory-mapped arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from studio.paths import atomic_write
from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext
from studio.training.methods.scratch.autoencoder import to_tensor
from studio.training.methods.scratch.lessons import Lessons
from studio.training.methods.scratch.models import latent_scale
from studio.training.methods.scratch.text import MAX_TOKENS, CompactVocabulary, load_tokenizer, tokenize

STAGE = "encode"
_CHUNK = 32


@dataclass(frozen=True)
class Pool:
    """``latents`` (n, channels, h, w) fp16, zero mean a channel and unit deviation overall; ``rows`` (n, captions, 77) compact token rows."""

    latents: npt.NDArray[np.float16]
    rows: npt.NDArray[np.int32]
    vocabulary: CompactVocabulary
    empty: npt.NDArray[np.int32]
    mean: tuple[float, ...]
    deviation: float


def build_pool(context: TrainingContext, vae: AutoencoderKL, lessons: Lessons) -> Pool:
    """Make the pool, or open it when an earlier sitting completed it. An encode that was cut off goes on where it was."""
    folder = context.run.path / "pool"
    if not (folder / "manifest.json").exists():
        folder.mkdir(exist_ok=True)
        ids = _tokenize_captions(lessons)
        np.save(folder / "ids.npy", ids)
        mean, deviation = _encode(context, vae, lessons, folder)
        atomic_write(folder / "manifest.json", json.dumps({"mean": mean, "deviation": deviation}).encode())
        context.measured(
            STAGE, latent_deviation=deviation, **{f"latent_mean_{i}": value for i, value in enumerate(mean)}
        )
    return open_pool(folder)


def open_pool(folder: Path) -> Pool:
    """The completed pool in ``folder``."""
    facts = json.loads((folder / "manifest.json").read_text("utf-8"))
    ids: npt.NDArray[np.int32] = np.load(folder / "ids.npy")
    empty = tokenize(load_tokenizer(), [""])
    vocabulary = CompactVocabulary.of(np.concatenate([ids.reshape(-1), empty.reshape(-1)]))
    latents = np.load(folder / "latents.npy", mmap_mode="r")
    return Pool(
        latents,
        vocabulary.compact(ids),
        vocabulary,
        vocabulary.compact(empty)[0],
        tuple(facts["mean"]),
        facts["deviation"],
    )


def normalise(pool: Pool, latents: torch.Tensor) -> torch.Tensor:
    """Raw encoder means -> what the U-Net sees."""
    mean = torch.tensor(pool.mean, device=latents.device)[:, None, None]
    return (latents.float() - mean) / pool.deviation


def _tokenize_captions(lessons: Lessons) -> npt.NDArray[np.int32]:
    captions = [caption for index in range(lessons.count) for caption in lessons.captions(index)]
    tokenizer = load_tokenizer()
    ids = [tokenize(tokenizer, captions[start : start + 4096]) for start in range(0, len(captions), 4096)]
    return np.concatenate(ids).reshape(lessons.count, -1, MAX_TOKENS)


def _encode(context: TrainingContext, vae: AutoencoderKL, lessons: Lessons, folder: Path) -> tuple[list[float], float]:
    part, count = context.settings(ScratchMethod).autoencoder, lessons.count
    edge = context.settings(ScratchMethod).data.side // latent_scale(part)
    shape = (count, part.latent_channels, edge, edge)
    marker = folder / "encoded.txt"
    start = int(marker.read_text()) if marker.exists() else 0
    latents = np.lib.format.open_memmap(
        folder / "latents.npy", mode="r+" if start else "w+", dtype=np.float16, shape=shape
    )
    clock = context.stage(STAGE, start, count)
    for low in range(start, count, _CHUNK):
        high = min(low + _CHUNK, count)
        pictures = lessons.pictures(low, high)
        with torch.no_grad(), context.autocast():
            latents[low:high] = (
                vae.encode(to_tensor(pictures).to(context.device)).latent_dist.mode().float().cpu().numpy()
            )
        if high % (_CHUNK * 64) == 0:
            latents.flush()
            atomic_write(marker, str(high).encode())
        clock.tick(high)
    latents.flush()
    if context.settings(ScratchMethod).start:  # the U-Net knows latents as that model scales them
        return [0.0] * part.latent_channels, 1 / float(vae.config.scaling_factor)
    sample = np.asarray(latents[:: max(1, count // 4000)], dtype=np.float32)
    mean = sample.mean(axis=(0, 2, 3))
    deviation = float((sample - mean[:, None, None]).std())
    return [float(value) for value in mean], deviation
