"""The scratch method: autoencoder, pool of latents, diffusion, export. Each stage leaves a complete result and is skipped by later sittings."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusers import AutoencoderKL

from studio.schema.training import ScratchMethod
from studio.training.context import TrainingContext
from studio.training.methods.scratch.autoencoder import STAGE as AUTOENCODER
from studio.training.methods.scratch.autoencoder import reconstruction_psnr, train_autoencoder
from studio.training.methods.scratch.diffusion import build_networks, train_diffusion
from studio.training.methods.scratch.export import export_model
from studio.training.methods.scratch.lessons import Lessons, open_lessons
from studio.training.methods.scratch.pool import build_pool
from studio.training.methods.scratch.reading import teach_reading
from studio.training.methods.scratch.start import copy_autoencoder

EXPORT = "export"
_PSNR_PICTURES = 128


def train_from_scratch(context: TrainingContext) -> Path:
    """Run or resume all stages; returns the finished diffusers folder."""
    lessons = open_lessons(context)
    if not context.team.leads:
        context.team.wait()
    vae = _autoencoder(context.alone(), lessons)
    pool = build_pool(context.alone(), vae, lessons)
    networks = build_networks(context, pool)
    if lessons.heads and not context.settings(ScratchMethod).start:
        teach_reading(context.alone(), lessons, pool, networks.text)
    if context.team.leads:
        context.team.wait()
    train_diffusion(context, pool, networks)
    if context.team.leads:
        clock = context.alone().stage(EXPORT, 0, 1)
        export_model(context, lessons, vae, networks, pool)
        clock.tick(1)
    context.team.wait()
    return context.run.model


def _autoencoder(context: TrainingContext, lessons: Lessons) -> AutoencoderKL:
    folder = context.run.path / "autoencoder"
    if context.settings(ScratchMethod).start and not folder.exists():
        copy_autoencoder(context.settings(ScratchMethod), folder)
    if not folder.exists():
        vae = train_autoencoder(context, lessons)
        unseen = lessons.unseen(_PSNR_PICTURES)
        context.measured(AUTOENCODER, psnr_db=reconstruction_psnr(vae, unseen), pictures=len(unseen))
        temporary = folder.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        vae.save_pretrained(temporary)
        temporary.rename(folder)
        context.store(AUTOENCODER).clear()
    return AutoencoderKL.from_pretrained(folder).to(context.device).eval()
