"""What there is: models, samplers, schedules, LoRAs, embeddings. Features that are not built have empty lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from studio.api.a1111.scripts import PLOT, script_info
from studio.api.a1111.upscale_script import SD_UPSCALE, upscale_info
from studio.api.common import StudioDep
from studio.library.embeddings import word_of
from studio.prompt.styles import Style
from studio.samplers.table import SAMPLERS, SCHEDULES
from studio.schema.models import ModelInfo
from studio.upscalers import ON_PIXELS, UPSCALERS, shown_name

router = APIRouter()


class SdModel(BaseModel):
    """A checkpoint. Hashes are null until the file has been read."""

    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    filename: str
    config: str | None = None


class Sampler(BaseModel):
    """A sampling method."""

    name: str
    aliases: list[str]
    options: dict[str, str]


class Scheduler(BaseModel):
    """A schedule type."""

    name: str
    label: str
    aliases: list[str] | None
    default_rho: float
    need_inner_model: bool


class Vae(BaseModel):
    """A separate VAE file."""

    model_name: str
    filename: str


class Lora(BaseModel):
    """A LoRA file."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any]


class Embedding(BaseModel):
    """An embedding. `shape` is the width of its vectors (SDXL: of both together); where it was trained no .safetensors file tells."""

    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None
    shape: int
    vectors: int


class Embeddings(BaseModel):
    """Embeddings by word."""

    loaded: dict[str, Embedding]
    skipped: dict[str, Embedding]


class Hypernetwork(BaseModel):
    """A hypernetwork file."""

    name: str
    path: str


class LatentUpscaleMode(BaseModel):
    """A way to enlarge latents."""

    name: str


class Upscaler(BaseModel):
    """An upscaler."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None = None


class FaceRestorer(BaseModel):
    """A network that restores faces, and the folder of its file."""

    name: str
    cmd_dir: str


@router.get("/sd-models")
def sd_models(studio: StudioDep) -> list[SdModel]:
    """Checkpoints that can be used."""
    return [
        SdModel(
            title=model.title, model_name=model.name, hash=model.short_hash, sha256=model.sha256, filename=model.path
        )
        for model in studio.library.checkpoints()
        if not model.problem
    ]


@router.get("/sd-vae")
def sd_vae(studio: StudioDep) -> list[Vae]:
    """Separate VAE files."""
    return [Vae(model_name=model.name, filename=model.path) for model in studio.library.vaes() if not model.problem]


@router.get("/sd-modules")
def sd_modules(studio: StudioDep) -> list[Vae]:
    """Forge's list: separate VAEs and text encoders."""
    found = [*studio.library.vaes(), *studio.library.text_encoders()]
    return [Vae(model_name=model.name, filename=model.path) for model in found if not model.problem]


@router.get("/loras")
def loras(studio: StudioDep) -> list[Lora]:
    """LoRA files."""
    return [
        Lora(name=model.name, alias=model.alias or model.name, path=model.path, metadata=dict(model.metadata))
        for model in studio.library.loras()
        if not model.problem
    ]


@router.get("/samplers")
def samplers() -> list[Sampler]:
    """Sampling methods."""
    return [
        Sampler(
            name=spec.name, aliases=list(spec.aliases), options={key: str(value) for key, value in spec.options.items()}
        )
        for spec in SAMPLERS
    ]


@router.get("/schedulers")
def schedulers() -> list[Scheduler]:
    """Schedule types."""
    return [
        Scheduler(
            name=spec.name,
            label=spec.label,
            aliases=list(spec.aliases) or None,
            default_rho=spec.default_rho,
            need_inner_model=spec.needs_table,
        )
        for spec in SCHEDULES
    ]


@router.get("/upscalers")
def upscalers(studio: StudioDep) -> list[Upscaler]:
    """Those that work on pixels, `None` first, as clients expect; models under the names that A1111 has for them."""
    models = {shown_name(model.name): model for model in studio.library.upscalers() if not model.problem}
    return [_upscaler(name, models.get(name)) for name in upscaler_names(models.values())]


def _upscaler(name: str, model: ModelInfo | None) -> Upscaler:
    if model is None:
        return Upscaler(name=name)
    return Upscaler(name=name, model_name=model.name, model_path=model.path, scale=model.enlarges)


def upscaler_names(models: Iterable[ModelInfo]) -> list[str]:
    """The names in the order of the list, which scripts number."""
    return list(dict.fromkeys([*ON_PIXELS, *(shown_name(model.name) for model in models if not model.problem)]))


@router.get("/latent-upscale-modes")
def latent_upscale_modes() -> list[LatentUpscaleMode]:
    """Those that work on latents."""
    return [LatentUpscaleMode(name=row.name) for row in UPSCALERS if row.latents]


@router.get("/embeddings")
def embeddings(studio: StudioDep) -> Embeddings:
    """Embeddings by word: those that the selected checkpoint takes, and those for others."""
    words = studio.embedding_words()
    usable = {word: _embedding(info) for word, info in words.usable.items()}
    others = (info for info in studio.library.embeddings() if not info.problem)
    skipped = {word: _embedding(info) for info in others if (word := word_of(info)) not in usable}
    return Embeddings(loaded=usable, skipped=skipped)


def _embedding(info: ModelInfo) -> Embedding:
    return Embedding(shape=sum(info.text_widths), vectors=info.vectors)


@router.get("/scripts")
def scripts() -> dict[str, list[str]]:
    """The scripts that `script_name` may name."""
    return {"txt2img": [PLOT], "img2img": [PLOT, SD_UPSCALE]}


@router.get("/script-info")
def script_infos() -> list[dict[str, Any]]:
    """What `script_args` of each script and route are, in their order."""
    return [*script_info(), upscale_info()]


@router.get("/prompt-styles")
def prompt_styles(studio: StudioDep) -> list[Style]:
    """Styles, from styles.csv."""
    return studio.library.styles.styles()


@router.get("/face-restorers")
def face_restorers(studio: StudioDep) -> list[FaceRestorer]:
    """Networks that restore faces, as far as their files are there."""
    folder = str(studio.paths.face_restoration)
    return [FaceRestorer(name=name, cmd_dir=folder) for name in studio.library.face_restorers()]


@router.get("/hypernetworks")
def hypernetworks(studio: StudioDep) -> list[Hypernetwork]:
    """Hypernetworks."""
    return [
        Hypernetwork(name=model.name, path=model.path) for model in studio.library.hypernetworks() if not model.problem
    ]


@router.get("/realesrgan-models")
def nothing_yet() -> list[dict[str, Any]]:
    """None yet."""
    return []
