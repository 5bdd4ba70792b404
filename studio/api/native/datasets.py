"""Data sets for training: uploads, the report before a run, captions."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from starlette.responses import Response

from studio.api.auth import is_from_here
from studio.api.common import StudioDep
from studio.app import Studio
from studio.errors import StorageError
from studio.paths import storage_error
from studio.schema.parts import Text
from studio.schema.training_data import (
    MAX_CAPTION,
    MAX_CAPTIONS,
    CaptionEdit,
    CaptionerInfo,
    CaptionPage,
    CaptionTask,
    DatasetReport,
    DatasetSettings,
)

router = APIRouter(prefix="/training/datasets", tags=["training"])

MAX_NAME = 1000
SPARE = 512 << 20
NAMED = 20
"""Files that stayed in a ZIP and are told by name."""
"""Bytes that an upload leaves free on the disk."""
ZIP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}

UploadName = Annotated[str | None, Field(max_length=100, description="Name of an upload, instead of path")]


class InspectBody(DatasetSettings):
    """A data set and what is to be done with it: the fields of a recipe's `data`, and a few about the run."""

    upload: UploadName = None
    epochs: int = Field(1, ge=1, le=1_000_000, description="How often a run goes through it")
    batch: int = Field(1, ge=1, le=4096, description="Pictures in one step")
    seconds_per_step: float | None = Field(
        None, gt=0, le=1e6, description="As measured; the report then tells the time"
    )

    def settings(self) -> DatasetSettings:
        """The fields of the data set alone."""
        return DatasetSettings.model_validate(self.model_dump(include=set(DatasetSettings.model_fields)))


class CaptionBody(BaseModel):
    """New captions of one picture; none takes them away."""

    path: str = Field("", max_length=4096)
    upload: UploadName = None
    format: str = Field("auto", max_length=40)
    name: Text = Field(max_length=MAX_NAME, description="The picture's name, as the page of captions tells it")
    captions: list[Annotated[Text, Field(max_length=MAX_CAPTION)]] = Field(max_length=MAX_CAPTIONS)


class CaptioningBody(BaseModel):
    """Which pictures are to be described, and by what."""

    path: str = Field("", max_length=4096)
    upload: UploadName = None
    format: str = Field("auto", max_length=40)
    captioner: str = Field(max_length=40, description="Name of a captioner")
    replace: bool = Field(False, description="Write over captions that are there")


class UploadAnswer(BaseModel):
    """The name of an upload, for the other routes, and what stayed in the ZIP because no data set is made of it."""

    upload: str
    left_out: list[str] = Field(description="Names of files, the first twenty")
    left_out_count: int


@router.get("")
def uploads(studio: StudioDep) -> list[str]:
    """Names of the uploaded data sets."""
    return studio.datasets.uploads()


@router.post("/upload", openapi_extra=ZIP_BODY)
async def upload(studio: StudioDep, request: Request, name: Annotated[str, Query(max_length=200)] = "") -> UploadAnswer:
    """Unpack a data set, sent as a ZIP file in the raw body. `name` is what it is to be called."""
    archive = await _received(studio, request)
    try:
        title = name.removesuffix(".zip") or "dataset"
        made = await run_in_threadpool(studio.datasets.add_archive, archive, title)
        left = made.left_out
        return UploadAnswer(upload=made.folder.name, left_out=list(left[:NAMED]), left_out_count=len(left))
    finally:
        with suppress(OSError):
            archive.unlink()


@router.post("/inspect")
def inspect(studio: StudioDep, request: Request, body: InspectBody) -> DatasetReport:
    """What a data set holds: pictures, sizes, captions, files that cannot be used, and what a run over it takes."""
    settings = studio.datasets.placed(
        body.settings(), body.upload, anywhere=is_from_here(request.scope, exposed=studio.exposed)
    )
    return studio.datasets.inspect(
        settings, epochs=body.epochs, batch=body.batch, seconds_per_step=body.seconds_per_step
    )


@router.get("/captions")
def captions(
    studio: StudioDep,
    request: Request,
    path: Annotated[str, Query(max_length=4096)] = "",
    upload: Annotated[str | None, Query(max_length=100)] = None,
    format: Annotated[str, Query(max_length=40)] = "auto",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CaptionPage:
    """A stretch of the pictures with their captions, in the order of the data set."""
    return studio.datasets.captions(_placed(studio, request, path, upload, format), offset, limit)


@router.put("/captions")
def edit(studio: StudioDep, request: Request, body: CaptionBody) -> CaptionEdit:
    """Write the captions of one picture to where its data set keeps them. Sending the answer's `former` undoes it."""
    settings = _placed(studio, request, body.path, body.upload, body.format)
    return studio.datasets.edit(settings, body.name, body.captions)


@router.get("/captioners")
def captioners(studio: StudioDep) -> list[CaptionerInfo]:
    """What can write captions, and what each lacks."""
    return studio.datasets.captioning.captioners()


@router.get("/captioning")
def captioning(studio: StudioDep) -> CaptionTask | None:
    """How the captioner does that runs, or ran last; null when none has."""
    return studio.datasets.captioning.task()


@router.post("/captioning")
def write_captions(studio: StudioDep, request: Request, body: CaptioningBody) -> CaptionTask:
    """Let a captioner describe every picture without a caption, in a process of its own; one data set at a time."""
    settings = _placed(studio, request, body.path, body.upload, body.format)
    return studio.datasets.captioning.start(settings, body.captioner, studio.settings.device, replace=body.replace)


@router.delete("/captioning")
def stop_captions(studio: StudioDep) -> CaptionTask | None:
    """Stop the captioner. What it has written stays."""
    return studio.datasets.captioning.stop()


@router.get("/thumbnail", response_class=Response)
def thumbnail(
    studio: StudioDep,
    request: Request,
    name: Annotated[str, Query(max_length=MAX_NAME)],
    path: Annotated[str, Query(max_length=4096)] = "",
    upload: Annotated[str | None, Query(max_length=100)] = None,
    format: Annotated[str, Query(max_length=40)] = "auto",
) -> Response:
    """A small JPEG of one picture."""
    data = studio.datasets.thumbnail(_placed(studio, request, path, upload, format), name)
    headers = {"cache-control": "private, max-age=60", "content-security-policy": "default-src 'none'; sandbox"}
    return Response(data, media_type="image/jpeg", headers=headers)


def _placed(studio: Studio, request: Request, path: str, upload: str | None, format: str) -> DatasetSettings:
    asked = DatasetSettings(path=path, format=format)
    return studio.datasets.placed(asked, upload, anywhere=is_from_here(request.scope, exposed=studio.exposed))


async def _received(studio: Studio, request: Request) -> Path:
    """The body as a file, which the caller removes. The guard counts its bytes; only a piece at a time is in memory."""
    folder = studio.paths.uploads

    def begin() -> tuple[Any, int]:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, suffix=".zip", delete=False), shutil.disk_usage(folder).free

    sink = None
    try:
        sink, free = await run_in_threadpool(begin)
        async for chunk in request.stream():
            free -= len(chunk)
            if free < SPARE:
                raise StorageError(f"The disk is too full for this upload: {folder} keeps {SPARE >> 20} MB free.")
            await run_in_threadpool(sink.write, chunk)
        await run_in_threadpool(sink.close)
    except BaseException as error:
        if sink is not None:
            sink.close()
            Path(sink.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(folder, error) from error
        raise
    return Path(sink.name)
