"""What routes share: how they get at the studio."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from studio.app import Studio


def _studio(request: Request) -> Studio:
    studio = request.app.state.studio
    assert isinstance(studio, Studio)
    return studio


StudioDep = Annotated[Studio, Depends(_studio)]
"""A route parameter of this type is the one studio of this server."""
