"""Does the model listen yet? The caption-swap test: how much the right caption lowers the loss against one with a wrong word.

    python -m studio.training.methods.scratch.gate RUN_DIR [--pictures 256]

Pictures begin to follow the text long after this number has left zero, and the raw loss tells nothing about text, so this is what to look
at ten minutes into a run. Scenes, noise and timesteps are the same for both captions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext
from studio.training.counter import choice, generator
from studio.training.data.scenes.captions import plain_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, draw_scene
from studio.training.data.scenes.vocabulary import BACKGROUNDS, COLOURS, OBJECTS
from studio.training.methods.scratch.autoencoder import to_tensor
from studio.training.methods.scratch.diffusion import Batch, Networks, averaged_networks, diffusion_loss
from studio.training.methods.scratch.models import build_scheduler
from studio.training.methods.scratch.objective import Objective
from studio.training.methods.scratch.pool import Pool, normalise, open_pool
from studio.training.methods.scratch.text import load_tokenizer, tokenize
from studio.training.runs import RunFolder

TIMESTEPS = (400, 500, 600, 700, 800)
Swap = Callable[[Scene, np.random.Generator], Scene]


def main(arguments: list[str] | None = None) -> int:
    """Print, for each kind of swap and each timestep, the share of pictures where the right caption wins and by how many percent of the loss."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.training.methods.scratch.gate",
        description="Caption-swap test of a run's newest checkpoint.",
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--pictures", type=int, default=256)
    options = parser.parse_args(arguments)
    run = RunFolder(options.run_dir)
    context = TrainingContext(run.config(), run)
    if context.settings(ScratchMethod).data.path:
        sys.stderr.write("The test swaps words of drawn scenes; this run learns from a data set.\n")
        return 1
    pool = open_pool(run.path / "pool")
    networks, step = averaged_networks(context, pool)
    vae = AutoencoderKL.from_pretrained(run.path / "autoencoder").eval()
    sys.stdout.write(f"step {step}; {options.pictures} pictures; share won, loss lowered by (%)\n")
    for name, swap in {"object": swap_object, "colour": swap_colour, "background": swap_background}.items():
        results = caption_swap(context, networks, pool, vae, swap, options.pictures)
        cells = "  ".join(f"t={t}: {won:.2f} {drop:+.2f}%" for t, (won, drop) in results.items())
        sys.stdout.write(f"{name:12s}{cells}\n")
    return 0


def caption_swap(
    context: TrainingContext, networks: Networks, pool: Pool, vae: AutoencoderKL, swap: Swap, count: int
) -> dict[int, tuple[float, float]]:
    """By timestep: (share of ``count`` scenes whose right caption has the lower loss, mean relative drop in percent)."""
    objective = Objective(
        build_scheduler(context.settings(ScratchMethod).diffusion).alphas_cumprod,
        context.settings(ScratchMethod).diffusion,
    )
    atlas, tokenizer, seed = GlyphAtlas(), load_tokenizer(), context.config.seed
    drops: dict[int, list[float]] = {t: [] for t in TIMESTEPS}
    indices = _single_scenes(seed, context.settings(ScratchMethod).data.pictures, count)
    with torch.no_grad():
        for start in range(0, count, 32):
            chunk = indices[start : start + 32]
            scenes = [draw_scene(seed, index) for index in chunk]
            wrong = [swap(scene, generator(seed, "gate", index)) for scene, index in zip(scenes, chunk, strict=True)]
            pictures = np.stack(
                [
                    paint_scene(s, atlas, seed, i, context.settings(ScratchMethod).data.side)
                    for s, i in zip(scenes, chunk, strict=True)
                ]
            )
            latents = normalise(pool, vae.encode(to_tensor(pictures)).latent_dist.mode())
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(start))
            rows = [
                torch.from_numpy(
                    pool.vocabulary.compact(tokenize(tokenizer, [plain_caption(scene) for scene in group])).astype(
                        np.int64
                    )
                )
                for group in (scenes, wrong)
            ]
            for t in TIMESTEPS:
                times = torch.full((len(chunk),), t)
                length = context.settings(ScratchMethod).text.short_length
                right, other = (
                    diffusion_loss(context, networks, objective, Batch(latents, noise, times, r[:, :length]))
                    for r in rows
                )
                drops[t].extend(((other - right) / other * 100).tolist())
    return {t: (float(np.mean(np.array(values) > 0)), float(np.mean(values))) for t, values in drops.items()}


def swap_object(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another object of the same sort (glyph or shape)."""
    others = [kind for kind in OBJECTS if kind != scene.main.kind and kind.is_shape == scene.main.kind.is_shape]
    return replace(scene, main=replace(scene.main, kind=choice(rng, others)))


def swap_colour(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another colour word, or one where there was none."""
    return replace(
        scene,
        main=replace(scene.main, colour=choice(rng, [name for name in COLOURS if name != scene.main.shown_colour])),
    )


def swap_background(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another plain background, by day."""
    others = [name for name in BACKGROUNDS if name != scene.background]
    return replace(scene, named=True, background=choice(rng, others), time="")


def _single_scenes(seed: int, first: int, count: int) -> list[int]:
    """Indices from ``first`` on, beyond the training pool, of scenes with one object and no style."""
    found: list[int] = []
    index = first
    while len(found) < count:
        scene = draw_scene(seed, index)
        if scene.partner is None and scene.count == 1 and not scene.style:
            found.append(index)
        index += 1
    return found


if __name__ == "__main__":
    raise SystemExit(main())
