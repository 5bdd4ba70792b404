"""`PictureFacts`: what a name may tell of a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

from studio.schema.resolved import ResolvedRequest


def _now() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True)
class PictureFacts:
    """Values of the tags for one picture. `now` carries its time zone; `job_timestamp` is `YYYYmmddHHMMSS`.

    `seeds` are those of the whole job; `iteration` and `batch_index` count from 0. `style_prompts` are the prompts of the
    chosen `styles`. `pixels` gives the raw RGB bytes and is called only where a pattern asks for them. `basename` stands in
    front of the number and is "grid" for grids; `zip` marks an archive of several pictures.
    """

    seed: int | None = None
    seeds: tuple[int, ...] = ()
    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    cfg_scale: float = 7.0
    sampler: str = "Euler"
    schedule: str = "Automatic"
    styles: tuple[str, ...] = ()
    style_prompts: tuple[str, ...] = ()
    width: int = 512
    height: int = 512
    batch_size: int = 1
    batch_count: int = 1
    iteration: int = 0
    batch_index: int = 0
    denoising_strength: float | None = None
    clip_skip: int = 1
    model_name: str = ""
    model_hash: str | None = None
    vae_file: str | None = None
    user: str | None = None
    now: datetime = field(default_factory=_now)
    job_timestamp: str = ""
    pixels: Callable[[], bytes] = bytes
    basename: str = ""
    zip: bool = False


def picture_facts(
    resolved: ResolvedRequest, index: int, started: float, pixels: Callable[[], bytes] = bytes
) -> PictureFacts:
    """The facts of picture `index` (0-based over the whole job) of a job that began at `started` (seconds since the epoch)."""
    return PictureFacts(
        seed=resolved.seeds[index],
        seeds=resolved.seeds,
        prompt=resolved.positive.text,
        negative_prompt=resolved.negative.text,
        steps=resolved.steps,
        cfg_scale=resolved.cfg_scale,
        sampler=resolved.sampler,
        schedule=resolved.schedule_label,
        width=resolved.width,
        height=resolved.height,
        batch_size=resolved.pictures_at_once,
        batch_count=resolved.batch_count,
        iteration=index // resolved.pictures_at_once,
        batch_index=index % resolved.pictures_at_once,
        denoising_strength=over.denoising_strength if (over := resolved.hires or resolved.source) else None,
        clip_skip=resolved.clip_skip,
        model_name=PurePosixPath(resolved.model.name).name,  # A1111 leaves the model's sub-folder out
        model_hash=resolved.model.short_hash,
        vae_file=resolved.vae.path if resolved.vae else None,
        styles=resolved.options.styles,
        style_prompts=resolved.options.style_prompts,
        user=resolved.options.user or None,
        job_timestamp=timestamp(started),
        pixels=pixels,
    )


def timestamp(moment: float) -> str:
    """Seconds since the epoch as A1111's `job_timestamp`: local time, `YYYYmmddHHMMSS`."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y%m%d%H%M%S")
