"""The studio's own API, `/studio/v1`: one file a topic."""

from fastapi import APIRouter

from studio.api.native import events, files, jobs, library, machine, reading, reproduce, styles, training

router = APIRouter(prefix="/studio/v1")
for part in (machine, jobs, events, files, library, styles, reading, reproduce, training):
    router.include_router(part.router)
