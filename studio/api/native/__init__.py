"""The studio's own API, `/studio/v1`: one file a topic."""

from fastapi import APIRouter

from studio.api.native import (
    datasets,
    events,
    files,
    init_images,
    jobs,
    library,
    machine,
    plots,
    prompts,
    reading,
    reproduce,
    sketches,
    styles,
    training,
)

router = APIRouter(prefix="/studio/v1")
topics = (
    machine,
    jobs,
    sketches,
    plots,
    events,
    files,
    init_images,
    library,
    styles,
    prompts,
    reading,
    reproduce,
    datasets,
    training,
)
for part in topics:
    router.include_router(part.router)
