"""Live pictures: asked for while somebody types, told in the answer, kept nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from studio.api.common import StudioDep, waker
from studio.api.native.jobs import whole_request
from studio.app import Studio
from studio.schema.events import TERMINAL
from studio.schema.request import GenerationRequest
from studio.sketching import FEWEST_STEPS, MOST_STEPS, STEPS, Sketch, ask_sketch

router = APIRouter(tags=["jobs"])


class SketchBody(GenerationRequest):
    """A request, as far as it is given, as for `generate`. It is painted as one picture, in few steps."""

    client: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Whose picture it is; each has one at a time")
    number: int = Field(ge=0, description="Grows from one picture of a client to the next")
    live_steps: int = Field(STEPS, ge=FEWEST_STEPS, le=MOST_STEPS, description="Steps of the live picture")


@router.post("/sketch", response_class=StreamingResponse)
async def sketch(studio: StudioDep, body: SketchBody) -> StreamingResponse:
    """Paint a live picture in place of the last one that `client` asked for: that stops within a step, or is not begun.

    The answer is a line of JSON for each event, as in `events`, but with previews and the picture in it (`png`, `previews`: URL-safe base64).
    The last is `finished`, `failed`, or `cancelled` when a newer one took its place; one with a smaller `number` than the newest is cancelled at
    once. Jobs go first: it is `queued` until none waits or runs. A live picture is no job, is not saved, and ends when nobody reads it.
    """
    news = asyncio.Event()
    request = await run_in_threadpool(whole_request, studio, body, {"client", "number", "live_steps"})
    asked = await run_in_threadpool(ask_sketch, studio, request, body.live_steps, body.client, body.number, waker(news))
    return StreamingResponse(_lines(studio, asked, news), media_type="application/x-ndjson")


async def _lines(studio: Studio, asked: Sketch, news: asyncio.Event) -> AsyncIterator[str]:
    try:
        while True:
            news.clear()
            events = asked.told()
            if events:
                yield "".join(f"{event.model_dump_json()}\n" for event in events)
                if isinstance(events[-1], TERMINAL):
                    return
            await news.wait()
    finally:
        studio.queue.sketches.drop(asked)
