"""Pictures and previews by id: no route takes a path."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from studio.api.auth import only_from_here
from studio.api.common import StudioDep, attachment, picture_type
from studio.api.native.jobs import Limit
from studio.errors import InvalidRequest, NotFound, StudioError
from studio.infotext.thumbnails import small_picture
from studio.naming import ZIP_PATTERN, PictureFacts, expand, legal_name
from studio.plotting import job_sheet
from studio.schema.jobs import ImageRecord
from studio.steps import decode_step

router = APIRouter(tags=["pictures"])

MAX_ZIP = 500
TILE = 384
"""Pixels: a tile's, on a screen with two for each."""
PICTURE_CSP = {"content-security-policy": "default-src 'none'; sandbox"}


class OpenFolderBody(BaseModel):
    """Which folder: the one of a picture, or the outputs folder."""

    image: int | None = None


@router.get("/images")
def images(studio: StudioDep, limit: Limit = 50, before: int | None = None) -> list[ImageRecord]:
    """Saved pictures, newest first, older than id `before`."""
    return studio.queue.images(limit=limit, before=before)


@router.get("/images.zip", response_class=StreamingResponse)
def zipped(studio: StudioDep, ids: Annotated[str, Query(max_length=10_000)]) -> StreamingResponse:
    """Several pictures as one ZIP; `ids` is a comma-separated list of at most 500."""
    records = [studio.queue.image(number) for number in _numbers(ids)]
    spool = tempfile.SpooledTemporaryFile(max_size=32 << 20)  # noqa: SIM115 - closed when it has been sent
    with zipfile.ZipFile(spool, "w", zipfile.ZIP_STORED) as archive:
        for record in records:
            archive.writestr(f"{record.id}-{_file_name(record)}", studio.queue.image_bytes(record.id))
    spool.seek(0)
    return StreamingResponse(_blocks(spool), media_type="application/zip", headers=attachment(_zip_name(records)))


@router.get("/images/{image_id}.png", response_class=Response)
def image(studio: StudioDep, request: Request, image_id: int, download: bool = False) -> Response:
    """One picture, in the format it was saved in. `download` makes the browser save it."""
    record = studio.queue.image(image_id)
    if download:
        data, headers = studio.queue.image_bytes(image_id), attachment(_file_name(record)) | PICTURE_CSP
        return Response(data, media_type=picture_type(data) or "image/png", headers=headers)
    return _unless_known(request, record, lambda: studio.queue.image_bytes(image_id))


@router.get("/images/{image_id}/small", response_class=Response)
def small(studio: StudioDep, request: Request, image_id: int) -> Response:
    """One picture for a tile: a JPEG of at most 384 pixels, or the picture itself where it is no larger."""
    record = studio.queue.image(image_id)
    return _unless_known(request, record, lambda: small_picture(studio.queue.image_bytes(image_id), TILE))


@router.get("/jobs/{job_id}/grid", response_class=Response)
def grid(studio: StudioDep, job_id: int, download: bool = False) -> Response:
    """The grid of a job's pictures, if one was saved; that of a plot, its sheet, also otherwise. `download` makes the browser save it."""
    job = studio.queue.job(job_id)
    data, name = job_sheet(studio, job), Path(job.grid).name if job.grid else f"grid-of-job-{job_id}"
    headers = {"cache-control": "private, no-cache", **PICTURE_CSP, **(attachment(name) if download else {})}
    return Response(data, media_type=picture_type(data) or "image/png", headers=headers)


@router.get("/jobs/{job_id}/previews/{batch}/{step}/{index}.jpg", response_class=Response)
def preview(studio: StudioDep, job_id: int, batch: int, step: int, index: int, download: bool = False) -> Response:
    """The predicted picture after one step."""
    headers = {"cache-control": "private, max-age=3600", **PICTURE_CSP}
    if download:
        headers |= attachment(f"job-{job_id}-batch-{batch}-step-{step}-{index}.jpg")
    return Response(studio.queue.preview_bytes(job_id, batch, step, index), media_type="image/jpeg", headers=headers)


@router.get("/jobs/{job_id}/steps/{batch}/{step}/{index}.png", response_class=Response)
def step(studio: StudioDep, job_id: int, batch: int, step: int, index: int, download: bool = False) -> Response:
    """The predicted picture after one step, decoded in full: for jobs that keep their latents, as long as these are kept.

    It is not the finished picture and carries no parameters.
    """
    headers = {"cache-control": "private, max-age=3600", **PICTURE_CSP}
    if download:
        headers |= attachment(f"job-{job_id}-batch-{batch}-step-{step}-{index}.png")
    return Response(decode_step(studio, job_id, batch, step, index), media_type="image/png", headers=headers)


@router.post("/open-folder")
def open_folder(studio: StudioDep, request: Request, body: OpenFolderBody | None = None) -> dict[str, bool]:
    """Show the folder of a picture, or the outputs folder, in the file manager of the machine the studio runs on."""
    only_from_here(request.scope, exposed=studio.exposed)
    folder = studio.paths.outputs
    if body is not None and body.image is not None:
        path = studio.queue.image(body.image).path
        if path is None:
            raise NotFound("This picture was not saved to any folder.")
        folder = Path(path).parent
    if not folder.is_dir():
        raise NotFound(f"{folder} does not exist.")
    _show(folder)
    return {"ok": True}


def _unless_known(request: Request, record: ImageRecord, read: Callable[[], bytes]) -> Response:
    """The picture that `read` gives, or 304 where the browser still has it. Ids of unsaved ones come again, so the time counts too."""
    tag = f'"{record.id}-{record.created:.6f}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", **PICTURE_CSP}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    data = read()
    return Response(data, media_type=picture_type(data) or "image/png", headers=headers)


def _show(folder: Path) -> None:
    if sys.platform == "win32":
        import os

        os.startfile(folder)
        return
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener is None:
        raise StudioError(f"No file manager was found. The folder is {folder}")
    nothing = subprocess.DEVNULL
    subprocess.Popen([opener, str(folder)], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def _numbers(ids: str) -> list[int]:
    try:
        numbers = list(dict.fromkeys(int(part) for part in ids.split(",")))
    except ValueError:
        raise InvalidRequest(f"ids = {ids[:80]!r} is not a list of numbers like 1,2,3.", field="ids") from None
    if len(numbers) > MAX_ZIP:
        raise InvalidRequest(f"{len(numbers)} pictures at once are too many; {MAX_ZIP} are allowed.", field="ids")
    return numbers


def _zip_name(records: list[ImageRecord]) -> str:
    """A1111's name of an archive, as if its pictures were one batch."""
    facts = PictureFacts(
        seed=records[0].seed,
        seeds=tuple(record.seed for record in records),
        batch_size=len(records),
        model_name=PurePosixPath(records[0].model).name,
        zip=True,
    )
    return legal_name(expand(ZIP_PATTERN, facts).text, ".zip")


def _file_name(record: ImageRecord) -> str:
    """The name on disk, or one like it."""
    return Path(record.path).name if record.path else f"{record.index:05d}-{record.seed}.png"


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while block := stream.read(1 << 18):
            yield block
