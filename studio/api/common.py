"""What routes share: how they get at the studio, how a stream is woken, and what kind a picture is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request

from studio.app import Studio


def _studio(request: Request) -> Studio:
    studio = request.app.state.studio
    assert isinstance(studio, Studio)
    return studio


def attachment(name: str) -> dict[str, str]:
    """The header that makes a browser save an answer as `name`; RFC 6266 for names beyond ASCII."""
    plain = name.isascii() and name.isprintable() and not set(name) & set('"\\%')
    value = f'filename="{name}"' if plain else f"filename*=UTF-8''{quote(name, safe='')}"
    return {"content-disposition": f"attachment; {value}"}


StudioDep = Annotated[Studio, Depends(_studio)]
"""A route parameter of this type is the one studio of this server."""


def waker(news: asyncio.Event) -> Callable[[], None]:
    """A function that sets `news`, an event of the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    return wake


_AVIF = (b"ftypavif", b"ftypavis")
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def picture_type(data: bytes) -> str | None:
    """The content type by the first bytes: a file that only ends in .png is not served as a picture."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in _AVIF:
        return "image/avif"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
