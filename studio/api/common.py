"""What routes share: how they get at the studio."""

from __future__ import annotations

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
