"""Pictures to begin with and masks: kept under a name that a request then says; see `studio.library.init_images`."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.responses import Response

from studio.api.common import StudioDep
from studio.api.native.files import PICTURE_CSP
from studio.api.native.reading import PICTURE_BODY
from studio.errors import NotFound, UnknownName
from studio.schema.resolved import InitImage
from studio.schema.source import NAME_DIGITS

router = APIRouter(prefix="/init-images", tags=["pictures"])

Name = Annotated[str, Path(pattern=f"^[0-9a-f]{{{NAME_DIGITS}}}$", description="Name of a kept picture")]


class KeptPicture(BaseModel):
    """A kept picture: the name that `source.image` or `mask.image` of a request says, and its size in pixels."""

    name: str
    width: int
    height: int


@router.post("", openapi_extra=PICTURE_BODY)
async def keep(studio: StudioDep, request: Request, mask: bool = False) -> KeptPicture:
    """Keep a picture sent as the raw body, to begin with it. With `mask` it is kept as one: what is opaque, or light, is painted."""
    images = studio.library.init_images
    return _told(await run_in_threadpool(images.keep_mask if mask else images.keep, await request.body()))


@router.post("/from-image/{image_id}")
def keep_finished(studio: StudioDep, image_id: int) -> KeptPicture:
    """Keep a picture that was painted here, to begin with it."""
    return _told(studio.library.init_images.keep(studio.queue.image_bytes(image_id)))


@router.get("/{name}.png", response_class=Response)
def kept(studio: StudioDep, request: Request, name: Name) -> Response:
    """A kept picture or mask."""
    try:
        data = FilePath(studio.library.init_images.find(name).path).read_bytes()
    except (UnknownName, OSError):
        raise NotFound(f"The picture {name} is not kept any more.") from None
    headers = {"etag": f'"{name}"', "cache-control": "private, no-cache", **PICTURE_CSP}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/png", headers=headers)


def _told(image: InitImage) -> KeptPicture:
    return KeptPicture(name=image.name, width=image.width, height=image.height)
