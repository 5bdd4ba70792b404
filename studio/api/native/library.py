"""What there is to paint with."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from studio.api.common import StudioDep, picture_type
from studio.errors import NotFound
from studio.samplers.table import SAMPLERS, SCHEDULES
from studio.schema.models import ModelInfo

router = APIRouter(tags=["library"])

MAX_PREVIEW = 8 << 20


class Sampler(BaseModel):
    """A sampling method; `schedule` is what Automatic stands for."""

    name: str
    aliases: list[str]
    schedule: str | None


class Schedule(BaseModel):
    """A schedule type."""

    name: str
    label: str
    aliases: list[str]


@router.get("/models")
def models(studio: StudioDep) -> list[ModelInfo]:
    """All checkpoints, also those with a `problem`."""
    return list(studio.library.checkpoints())


@router.get("/vaes")
def vaes(studio: StudioDep) -> list[ModelInfo]:
    """All separate VAE files."""
    return list(studio.library.vaes())


@router.get("/text-encoders")
def text_encoders(studio: StudioDep) -> list[ModelInfo]:
    """All text encoders in files of their own, also those with a `problem`."""
    return list(studio.library.text_encoders())


@router.get("/loras")
def loras(studio: StudioDep) -> list[ModelInfo]:
    """All LoRA files."""
    return list(studio.library.loras())


@router.get("/embeddings")
def embeddings(studio: StudioDep) -> list[ModelInfo]:
    """All embedding files, also those with a `problem`."""
    return list(studio.library.embeddings())


@router.get("/hypernetworks")
def hypernetworks(studio: StudioDep) -> list[ModelInfo]:
    """All hypernetwork files, also those with a `problem`."""
    return list(studio.library.hypernetworks())


@router.get("/upscalers")
def upscalers(studio: StudioDep) -> list[ModelInfo]:
    """All upscaler model files, also those with a `problem`."""
    return list(studio.library.upscalers())


@router.get("/loras/preview", response_class=Response)
def lora_preview(studio: StudioDep, name: str) -> Response:
    """The picture that lies beside a LoRA file."""
    return _preview(f"LoRA {name!r}", studio.library.lora(name))


@router.get("/embeddings/preview", response_class=Response)
def embedding_preview(studio: StudioDep, name: str) -> Response:
    """The picture that lies beside an embedding file."""
    return _preview(f"Embedding {name!r}", studio.library.embedding(name))


@router.post("/refresh")
def refresh(studio: StudioDep) -> dict[str, bool]:
    """Look for new, changed and removed model files."""
    studio.library.refresh()
    studio.library.start_hashing()
    return {"ok": True}


@router.get("/samplers")
def samplers() -> list[Sampler]:
    """All sampling methods."""
    return [Sampler(name=spec.name, aliases=list(spec.aliases), schedule=spec.default_schedule) for spec in SAMPLERS]


@router.get("/schedules")
def schedules() -> list[Schedule]:
    """All schedule types."""
    return [Schedule(name=spec.name, label=spec.label, aliases=list(spec.aliases)) for spec in SCHEDULES]


def _preview(label: str, info: ModelInfo) -> Response:
    """The picture beside a file. Raises `NotFound`, calling the file `label`."""
    data = _picture(Path(info.preview)) if info.preview else b""
    kind = picture_type(data)
    if kind is None:
        raise NotFound(f"{label} has no preview picture.")
    headers = {"cache-control": "private, max-age=60", "content-security-policy": "default-src 'none'; sandbox"}
    return Response(data, media_type=kind, headers=headers)


def _picture(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_PREVIEW else b""
    except OSError:
        return b""
