"""A queue over a `FakeEngine` in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.engine.fake import FakeEngine
from studio.jobs import JobQueue, JobStore
from studio.paths import Paths
from studio.schema.engine import Engine
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import ResolvedRequest
from studio.settings import Settings
from tests.plans import prompt_plan

MODEL = ModelInfo(
    kind="checkpoint", name="tiny", path="/nowhere/tiny", layout="folder", family="sd1", size=1, mtime=0.0
)


def prepare(request: GenerationRequest, options: RunOptions) -> ResolvedRequest:
    """What `studio.resolve` does, without a library."""

    seed = max(request.seed, 0)
    return ResolvedRequest(
        positive=prompt_plan(request.prompt), negative=prompt_plan(request.negative_prompt), loras=(), model=MODEL, vae=None,
        sampler=request.sampler, schedule="Karras", schedule_label="Karras", sampler_options=request.sampler_options,
        steps=request.steps, cfg_scale=request.cfg_scale, width=request.width, height=request.height,
        batch_size=request.batch_size, batch_count=request.batch_count,
        seeds=tuple(seed + i for i in range(request.picture_count)),
        clip_skip=request.clip_skip, emphasis=request.emphasis, rng=request.rng, options=options,
    )  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


QueueMaker = Callable[..., JobQueue]


@pytest.fixture
def make_queue(paths: Paths) -> Iterator[QueueMaker]:
    """Queues that are closed at the end; a second one on the same folder needs the first to be closed."""
    made: list[JobQueue] = []

    def make(
        engine: Engine | None = None, *, max_queue: int = 100, keep: int = 200, start: bool = True, **settings: object
    ) -> JobQueue:
        chosen, store = Settings.model_validate(settings), JobStore(paths.database)
        queue = JobQueue(store, engine or FakeEngine(), prepare, paths, max_queue, lambda: keep, lambda: chosen)
        made.append(queue)
        if start:
            queue.start()
        return queue

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def small() -> Callable[..., GenerationRequest]:
    """A request for tiny pictures."""

    def make(prompt: str = "a fox", **fields: object) -> GenerationRequest:
        return GenerationRequest.model_validate(
            {"prompt": prompt, "width": 64, "height": 64, "steps": 3, "seed": 5, **fields}
        )

    return make
