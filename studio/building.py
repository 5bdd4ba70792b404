"""How a studio is put together: the one place that makes library, engine, queue and training runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from studio.app import Studio
from studio.paths import Paths
from studio.settings import Settings

if TYPE_CHECKING:
    from studio.schema.engine import Engine


def build(
    settings: Settings, paths: Paths, *, engine: Engine | None = None, queue: bool = True, exposed: bool = False
) -> Studio:
    """Put a studio together. `engine` is given by tests; `queue=False` is for one picture on the command line.

    Raises `StudioError` when another server uses the data folder or the folder cannot be written.
    """
    from studio.library import Library

    library = Library(paths)
    chosen = engine or _worker_engine(settings, paths)
    studio = Studio(settings, paths, library, None, chosen, exposed=exposed)
    if queue:
        add_queue(studio)
    return studio


def add_queue(studio: Studio) -> None:
    """Give `studio` what a server has: the job queue, the training runs, and an order between the two.

    Raises `StudioError` when another server uses the data folder or the folder cannot be written.
    """
    from studio.jobs import JobQueue, JobStore
    from studio.runs import RunManager
    from studio.runs.check import check_training
    from studio.runs.gate import ConsiderateEngine

    store = JobStore(studio.paths.database)
    studio.notes += store.notes
    training = RunManager(
        studio.paths,
        lambda: studio.settings,
        painting_device=lambda: studio.engine.info().device,
        check=lambda config: check_training(config, studio.library),
    )
    queue = JobQueue(
        store,
        ConsiderateEngine(studio.engine, training.gate),
        studio.resolve,
        studio.paths,
        max_queue=studio.settings.max_queue,
        keep_previews=lambda: studio.settings.keep_previews,
        settings=lambda: studio.settings,
    )
    studio.attach(queue, training)


def _worker_engine(settings: Settings, paths: Paths) -> Engine:
    from studio.engine.worker_client import WorkerEngine

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return WorkerEngine(
        settings.device,
        settings.attention,
        settings.precision,
        settings.compile,
        settings.without,
        settings.checkpoints_in_memory,
        copies=(paths.converted, int(settings.converted_checkpoints_gb * 1e9)),
        log_file=paths.state / "worker.log",
    )
