"""State of the server, and its settings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from studio.api.changes import change_settings, visible
from studio.api.common import StudioDep
from studio.errors import StudioError
from studio.schema.engine import EngineInfo
from studio.schema.jobs import JobRecord
from studio.settings import Settings

router = APIRouter(tags=["server"])


class State(BaseModel):
    """Everything a page needs first. `boot` changes with every start of the server; `last_seq` is its newest event."""

    version: str
    boot: str
    last_seq: int
    exposed: bool
    checkpoint: str | None
    engine: EngineInfo
    running: JobRecord | None
    waiting: int
    notes: list[str]


class SettingsAnswer(BaseModel):
    """`values` by name; `fields` are their JSON schemas, with `group` and `http` (whether PATCH may change it)."""

    values: dict[str, Any]
    fields: dict[str, Any]


@router.get("/state")
def state(studio: StudioDep, request: Request) -> State:
    """What the server is doing."""
    running = studio.queue.running()
    try:
        checkpoint: str | None = studio.library.checkpoint(studio.settings.sd_model_checkpoint or None).title
    except StudioError:
        checkpoint = None
    return State(
        version=studio.version, boot=request.app.state.boot, last_seq=studio.queue.events.last_seq, exposed=studio.exposed,
        checkpoint=checkpoint, engine=studio.engine.info(), running=running.job if running else None,
        waiting=studio.queue.waiting, notes=studio.notes,
    )  # fmt: skip


@router.get("/settings")
def read_settings(studio: StudioDep) -> SettingsAnswer:
    """All settings, except the password."""
    properties = Settings.model_json_schema()["properties"]
    values = visible(studio.settings)
    return SettingsAnswer(values=values, fields={name: properties[name] for name in values})


@router.patch("/settings")
def write_settings(studio: StudioDep, changes: dict[str, Any]) -> dict[str, Any]:
    """Change some settings; all of them or, when one is refused, none. Answers all values."""
    return visible(change_settings(studio, changes))
