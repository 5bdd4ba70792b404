"""Server-sent events: everything that happens, resumable, without a thread per listener."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import StreamingResponse

from studio.api.common import StudioDep
from studio.app import Studio
from studio.schema.engine import EngineInfo

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
    """A stream of `hello` {last_seq, boot, missed}, `job` (JobEvent) and `engine` (EngineInfo, when it changed).

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
    with hub.subscribe(after, wake=_waker(news)) as subscription:
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


def _waker(news: asyncio.Event) -> Callable[[], None]:
    """Sets `news` from the publishing thread."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    return wake


def _message(name: str, data: str, event_id: str | None = None) -> str:
    identity = f"id: {event_id}\n" if event_id else ""
    return f"{identity}event: {name}\ndata: {data}\n\n"


def _is_news(told: EngineInfo, info: EngineInfo) -> bool:
    if abs(told.memory - info.memory) >= MEMORY_STEP:
        return True
    return told.model_copy(update={"memory": 0}) != info.model_copy(update={"memory": 0})
