"""How long a user waits for the first preview, through the program's own worker process."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.peers.client import THREADS
from bench.peers.requests import ENGINE, Models, asked
from bench.peers.workloads import WORKLOADS, Job
from studio.engine.worker_client import WorkerEngine
from studio.schema.engine import CancelToken
from studio.schema.events import Progress

GOAL_MS = 50.0
"""Beyond one step, for prompts that were painted before."""


def first_preview(root: Path, *, quick: bool) -> dict[str, Any]:
    """From the request to the first preview, when the model is loaded: with prompts that were painted before, and with new ones.

    `root` holds the model of the first workload. `beyond_one_step_ms` is what the first preview takes longer than a step from one preview
    to the next of the same job. Raises what the worker raises.
    """
    workload = WORKLOADS["W1"].tiny() if quick else WORKLOADS["W1"]
    models, count = Models(root), 1 if quick else 5
    with _environment(THREADS), contextlib.closing(WorkerEngine(**ENGINE)) as engine:
        known_job, *new_jobs = [workload.jobs(number)[0] for number in range(1 + count)]
        _waits(engine, known_job, models)  # loads the model
        known = [_waits(engine, known_job, models) for _ in range(count)]
        new = [_waits(engine, job, models) for job in new_jobs]
    return {"goal_ms": GOAL_MS, "known_prompts": _summary(known), "new_prompts": _summary(new)}


def _waits(engine: WorkerEngine, job: Job, models: Models) -> tuple[float, float]:
    """Seconds to the first preview, and median seconds from one to the next."""
    began = time.perf_counter()
    events = engine.run(asked(job, models), CancelToken())
    moments = [time.perf_counter() for event in events if isinstance(event, Progress) and event.previews]
    return moments[0] - began, statistics.median(after - before for before, after in pairwise(moments))


def _summary(waits: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {
        "first_preview_seconds": round(statistics.median(first for first, _ in waits), 3),
        "step_seconds": round(statistics.median(step for _, step in waits), 3),
        "beyond_one_step_ms": round(1000 * statistics.median(first - step for first, step in waits), 1),
        "runs": len(waits),
    }


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """For the worker that is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
