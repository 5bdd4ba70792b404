"""The studio's own API, `/studio/v1`: one file a topic."""

from fastapi import APIRouter

from studio.api.native import (
    datasets,
    events,
    files,
    jobs,
    library,
    machine,
    prompts,
    reading,
    reproduce,
    sketches,
    styles,
    training,
)

router = APIRouter(prefix="/studio/v1")
for part in (machine, jobs, sketches, events, files, library, styles, prompts, reading, reproduce, datasets, training):
    router.include_router(part.router)
