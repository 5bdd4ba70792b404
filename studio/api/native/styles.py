"""Styles and wildcards: what prompts may name."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from studio.api.common import StudioDep
from studio.prompt.styles import Style
from studio.schema.parts import MAX_PROMPT, Text
from studio.schema.request import StyleName

router = APIRouter(tags=["prompts"])


class StyleBody(BaseModel):
    """A style to keep. A text with `{prompt}` is put around the prompt, another behind it."""

    name: StyleName
    prompt: Text = Field("", max_length=MAX_PROMPT)
    negative_prompt: Text = Field("", max_length=MAX_PROMPT)


@router.get("/styles")
def styles(studio: StudioDep) -> list[Style]:
    """All styles, in the order of their files."""
    return studio.library.styles.styles()


@router.put("/styles")
def save_style(studio: StudioDep, body: StyleBody) -> Style:
    """Keep a style in styles.csv, in the place of the one that has its name."""
    style = Style(body.name.strip(), body.prompt, body.negative_prompt)
    studio.library.styles.save(style)
    return style


@router.delete("/styles/{name:path}")
def delete_style(studio: StudioDep, name: str) -> dict[str, bool]:
    """Take a style out of its file."""
    studio.library.styles.delete(name)
    return {"ok": True}


@router.get("/wildcards")
def wildcards(studio: StudioDep) -> list[str]:
    """Names for `__name__` in a prompt."""
    return studio.library.wildcards.names()
