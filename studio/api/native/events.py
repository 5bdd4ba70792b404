"""Server-sent events: everything that happens, resumable, without a thread per listener."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse

from studio.api.common import StudioDep, waker
from studio.app import Studio
from studio.schema.engine import EngineInfo
from studio.schema.runs import RunRecord

router = APIRouter(tags=["events"])

ENGINE_SECONDS = 1.0
"""How often the engine's state is looked at."""
HEARTBEAT_SECONDS = 15.0
MEMORY_STEP = 64 << 20
"""Bytes the engine's memory has to change by to be news."""


@router.get("/events", response_class=StreamingResponse)
async def events(
    studio: StudioDep, request: Request, after: int | None = None, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """A stream of `hello` {last_seq, boot, missed}, `job` (JobEvent), `engine` (EngineInfo, when it changed) and `training`.

    `training` holds `{whole, runs, gone}`: the records of all runs (`whole`, at first) or of those that changed, and the ids of runs that are no more. A run's own
    events are read from `training/runs/ID/events`, from the byte one has up to its record's `summary.offset`.

    Goes on after `Last-Event-ID` (or event number `after` of this boot); without either it begins now. `missed` true
    means that events in between are gone: read `state` and `jobs` anew.
    """
    boot = request.app.state.boot
    start = _resume(last_event_id, boot) if last_event_id else after
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(studio, boot, start), media_type="text/event-stream", headers=headers)


def _resume(last_event_id: str, boot: str) -> int:
    """The event number in `<boot>-<seq>`; -1, which no hub has, when it is of another run of the server."""
    run, _, seq = last_event_id.rpartition("-")
    return int(seq) if run == boot and seq.isascii() and seq.isdecimal() and len(seq) < 16 else -1


async def _stream(studio: Studio, boot: str, after: int | None) -> AsyncIterator[str]:
    hub, news = studio.queue.events, asyncio.Event()
    told: EngineInfo | None = None
    shown: dict[str, RunRecord] | None = None
    with hub.subscribe(after, wake=waker(news)) as subscription:
        yield _message("hello", json.dumps({"last_seq": hub.last_seq, "boot": boot, "missed": subscription.missed}))
        spoke = time.monotonic()
        while True:
            news.clear()
            ended = subscription.closed
            parts = []
            while (event := subscription.get(0)) is not None:
                parts.append(_message("job", event.model_dump_json(), f"{boot}-{event.seq}"))
            info = studio.engine.info()
            if told is None or _is_news(told, info):
                parts.append(_message("engine", info.model_dump_json()))
                told = info
            known = {record.id: record for record in studio.training.runs()}
            if (change := _training(shown, known)) is not None:
                parts.append(_message("training", change))
                shown = known
            if not parts and time.monotonic() - spoke >= HEARTBEAT_SECONDS:
                parts.append(": still here\n\n")
            if parts:
                spoke = time.monotonic()
                yield "".join(parts)
            if ended:
                return
            try:
                await asyncio.wait_for(news.wait(), ENGINE_SECONDS)
            except asyncio.TimeoutError:
                continue


def _training(shown: dict[str, RunRecord] | None, known: dict[str, RunRecord]) -> str | None:
    """What is new about training runs since `shown`, as JSON; None when nothing is."""
    before = shown or {}
    changed = [record.model_dump(mode="json") for run_id, record in known.items() if before.get(run_id) != record]
    gone = [run_id for run_id in before if run_id not in known]
    return (
        json.dumps({"whole": shown is None, "runs": changed, "gone": gone})
        if changed or gone or shown is None
        else None
    )


def _message(name: str, data: str, event_id: str | None = None) -> str:
    identity = f"id: {event_id}\n" if event_id else ""
    return f"{identity}event: {name}\ndata: {data}\n\n"


def _is_news(told: EngineInfo, info: EngineInfo) -> bool:
    if abs(told.memory - info.memory) >= MEMORY_STEP:
        return True
    return told.model_copy(update={"memory": 0}) != info.model_copy(update={"memory": 0})
