"""Reading pictures and texts, and the form a browser left."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from studio.api.common import StudioDep
from studio.infotext.read import MAX_INFOTEXT
from studio.schema.parts import Text

router = APIRouter(tags=["reading"])


class TextBody(BaseModel):
    """A text."""

    text: Text = Field(max_length=MAX_INFOTEXT)


class PictureAnswer(BaseModel):
    """What a picture says about itself: the infotext (null: it has none), other text entries, the request it stands for."""

    infotext: str | None
    items: dict[str, str]
    request: dict[str, Any]
    notes: list[str]


class InfotextAnswer(BaseModel):
    """The request an infotext stands for, as far as it could be understood."""

    request: dict[str, Any]
    notes: list[str]


class TokensAnswer(BaseModel):
    """Tokens used, and the end of the last started chunk: 12 of 75."""

    used: int
    limit: int


PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
            for kind in ("png", "jpeg", "webp", "avif", "gif")
        },
    }
}


@router.post("/picture-info", openapi_extra=PICTURE_BODY)
async def picture_info(studio: StudioDep, request: Request) -> PictureAnswer:
    """Read a PNG, JPEG, WebP, AVIF or GIF sent as the raw body."""
    info = await run_in_threadpool(studio.read_picture, await request.body())
    return PictureAnswer(infotext=info.infotext, items=info.items, request=info.request, notes=info.notes)


@router.post("/infotext")
def infotext(studio: StudioDep, body: TextBody) -> InfotextAnswer:
    """Read A1111 generation text."""
    parsed = studio.read_infotext(body.text)
    return InfotextAnswer(request=parsed.request, notes=parsed.notes)


@router.post("/tokens")
def tokens(studio: StudioDep, body: TextBody) -> TokensAnswer:
    """Count the tokens of a prompt."""
    used, limit = studio.count_tokens(body.text)
    return TokensAnswer(used=used, limit=limit)


@router.get("/form/{browser}")
def load_form(studio: StudioDep, browser: str) -> dict[str, Any] | None:
    """The form as this browser left it; null when it is new."""
    return studio.load_form(browser)


@router.put("/form/{browser}")
def save_form(studio: StudioDep, browser: str, form: dict[str, Any]) -> dict[str, bool]:
    """Remember the form of one browser."""
    studio.save_form(browser, form)
    return {"ok": True}
