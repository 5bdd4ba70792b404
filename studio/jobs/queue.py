"""`JobQueue`: what waits, what runs, what became of it.

One dispatcher thread feeds the engine, first in first out, and paints sketches (`studio.jobs.sketches`) when it has no
job. Rows are committed before anybody is told, so a reader who heard an event finds the row at least that far. What the
database could not take (a full disk) is kept in memory and written as soon as it can be.

After a restart: waiting jobs wait on and run; a job that was running is `interrupted` and is never rerun by itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import EngineError, NotFound, QueueFull, StorageError
from studio.jobs.dispatcher import Dispatcher, Ending, LiveJob, Prepare
from studio.jobs.events import EventHub
from studio.jobs.latents import LatentStore
from studio.jobs.outputs import PictureStore, PreviewStore
from studio.jobs.saving import read_file
from studio.jobs.sketches import SketchLane
from studio.jobs.store import JobStore
from studio.paths import Paths
from studio.schema.engine import CancelMode, Engine
from studio.schema.events import Cancelled, Failed, Finished, Progress, Queued, Started
from studio.schema.jobs import ACTIVE, ImageRecord, JobRecord, JobStatus
from studio.schema.request import GenerationRequest, RunOptions
from studio.settings import Settings

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 2.0
"""How often the row of a running job learns its progress; live readers get it from memory."""
CLOSE_SECONDS = 10.0
"""How long `close` waits for the running job to stop."""


@dataclass(frozen=True)
class Running:
    """The running job as it is at one moment: its newest step, the newest one with a preview, what was asked of it."""

    job: JobRecord
    last: Progress | None
    shown: Progress | None
    message: str
    seconds: float
    asked: CancelMode


class JobQueue:
    """See the module. All methods are callable from any thread and raise `StorageError` when the database cannot be read."""

    def __init__(
        self,
        store: JobStore,
        engine: Engine,
        prepare: Prepare,
        paths: Paths,
        max_queue: int,
        keep_previews: Callable[[], int],
        settings: Callable[[], Settings] = Settings,
    ) -> None:
        self.events = EventHub()
        self.store = store
        self._pictures = PictureStore(store, paths, settings)
        self._previews = PreviewStore(paths)
        self._latents = LatentStore(paths, lambda: settings().latents_limit * 1_000_000)
        self._dispatcher = Dispatcher(engine, prepare, self._pictures, self._previews, self._latents)
        self._max_queue = max_queue
        self._keep_previews = keep_previews
        self._changed = threading.Condition(threading.RLock())
        self.sketches = SketchLane(self._changed, engine, self._latents.find, max_queue)
        self._waiting: deque[int] = deque()
        self._running: LiveJob | None = None
        self._unwritten: dict[int, dict[str, Any]] = {}
        self._closing = False
        self._thread: threading.Thread | None = None
        self._recover()

    # Life

    def start(self) -> None:
        """Begin to work. Idempotent."""
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the running job, keep the waiting ones for the next start, end all subscriptions, close the store."""
        with self._changed:
            self._closing = True
            running = self._running
            if running is not None:
                running.cancel.interrupt()
            self.sketches.close()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        with self._changed:
            if self._running is not None:  # the engine did not obey in time
                self._end(self._running, Failed(error=_stopped().to_dict()))
        self.events.close()
        self.store.close()

    # Orders

    def submit(self, request: GenerationRequest, options: RunOptions, source: str) -> JobRecord:
        """Enqueue. Raises `QueueFull`, or `StorageError` when the job cannot be stored."""
        with self._changed:
            if len(self._waiting) >= self._max_queue:
                raise QueueFull(
                    f"{len(self._waiting)} jobs are waiting, and no more than {self._max_queue} may: "
                    "wait for one to end, or cancel one."
                )
            job_id = self.store.add_job(request, options, source, time.time())
            self._waiting.append(job_id)
            self.sketches.make_way()
            self.events.publish(job_id, Queued(position=len(self._waiting)))
            self._changed.notify_all()
            return self.job(job_id)

    def cancel(self, job_id: int) -> JobRecord:
        """Take a waiting job out, or interrupt it when it runs; an ended job is left as it is. Raises `NotFound`."""
        with self._changed:
            if self._running is not None and self._running.id == job_id:
                self._running.cancel.interrupt()
            elif job_id in self._waiting:
                self._waiting.remove(job_id)
                self._write(job_id, {"status": "cancelled", "finished": time.time()})
                self.events.publish(job_id, Cancelled())
                self._changed.notify_all()
            return self.job(job_id)

    def retry(self, job_id: int) -> JobRecord:
        """A new job with the request of an old one. Raises `NotFound`, `QueueFull`, `InvalidRequest`."""
        return self.submit(*self.store.order(job_id))

    def interrupt(self) -> None:
        """End the running job within one step; its finished pictures stay. Nothing happens when none runs."""
        with self._changed:
            if self._running is not None:
                self._running.cancel.interrupt()

    def skip(self, job_id: int | None = None) -> None:
        """Let the running job, or `job_id` if that is the one, go on with its next batch. Nothing happens when none runs."""
        with self._changed:
            if self._running is not None and job_id in (None, self._running.id):
                self._running.cancel.skip()

    def wait(self, job_id: int, timeout: float | None) -> JobRecord:
        """Block until the job has ended or `timeout` seconds (None: for ever) are over; the record as it is then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (record := self.job(job_id)).status in ACTIVE:
                left = None if deadline is None else deadline - time.monotonic()
                if self._closing or (left is not None and left <= 0):
                    break
                self._changed.wait(left)
            return record

    # Looking

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def job(self, job_id: int) -> JobRecord:
        """One job as it is now. Raises `NotFound`."""
        with self._changed:
            return self._present(self.store.job(job_id))

    def jobs(self, limit: int = 50, active: bool = False, before: int | None = None) -> list[JobRecord]:
        """The newest jobs (older than id `before`), newest first; `active`: only waiting and running ones, oldest first."""
        with self._changed:
            records = self.store.active_jobs() if active else self.store.jobs(limit, before)
            present = [self._present(record) for record in records]
        return [record for record in present if record.status in ACTIVE][:limit] if active else present

    def running(self) -> Running | None:
        """The job that is being painted, with its newest step."""
        with self._changed:
            live = self._running
            if live is None:
                return None
            shown = next((step for step in reversed(live.steps) if step.preview_urls), None)
            seconds = time.monotonic() - live.began
            return Running(self.job(live.id), live.last, shown, live.message, seconds, live.cancel.mode)

    def progress_events(self, job_id: int) -> list[Progress]:
        """All steps of a job so far, with preview URLs; empty when they were pruned."""
        with self._changed:
            running = self._running if self._running is not None and self._running.id == job_id else None
            steps = list(running.steps) if running else None
        return self._latents.marked(job_id, self._previews.steps(job_id) if steps is None else steps)

    def image(self, image_id: int) -> ImageRecord:
        """One picture. Raises `NotFound`."""
        return self._pictures.record(image_id)

    def image_bytes(self, image_id: int) -> bytes:
        """Its PNG. Raises `NotFound`."""
        return self._pictures.data(image_id)

    def grid_bytes(self, job_id: int) -> bytes:
        """The file of a job's grid. Raises `NotFound`."""
        grid = self.job(job_id).grid
        if grid is None:
            raise NotFound(f"Job {job_id} has no grid.")
        return read_file(Path(grid), f"the grid of job {job_id}")

    def images(self, limit: int = 50, before: int | None = None) -> list[ImageRecord]:
        """The newest saved pictures (older than id `before`), newest first."""
        return self.store.images(limit, before)

    def preview_bytes(self, job_id: int, batch: int, step: int, index: int) -> bytes:
        """The JPEG of one preview. Raises `NotFound`."""
        return self._previews.data((job_id, batch, step, index))

    def step_latents(self, job_id: int, batch: int, step: int) -> bytes:
        """The latents of one step of one batch, as the engine packed them. Raises `NotFound`."""
        return self._latents.data((job_id, batch, step))

    def last_painter(self, job_id: int, batch: int) -> str:
        """See `LatentStore.last_painter`."""
        return self._latents.last_painter(job_id, batch)

    # The dispatcher's thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self.sketches.waiting or self._closing):
                    self._changed.wait()
                if self._closing:
                    return
                live = self._running = LiveJob(self._waiting.popleft()) if self._waiting else None
                sketch = self.sketches.take() if live is None else None
            if sketch is not None:
                self.sketches.paint(sketch)
            if live is not None:
                self._work_on(live)

    def _work_on(self, live: LiveJob) -> None:
        try:
            self._run(live)
        except Exception:
            log.exception("job %d could not be run", live.id)
            with self._changed:
                self._end(live, Failed(error=EngineError("The job could not be run; the log says why.").to_dict()))

    def _run(self, live: LiveJob) -> None:
        record = self.job(live.id)
        self._flush()
        self._write(live.id, {"status": "running", "started": live.started})
        self.events.publish(live.id, Started())
        self._previews.prune(self._keep_previews())
        self._latents.prune(self._keep_previews())
        written = time.monotonic()
        for event in self._dispatcher.run(record, live):
            if isinstance(event, (Finished, Failed, Cancelled)):
                with self._changed:
                    self._end(live, event)
                return
            self.events.publish(live.id, event)
            if time.monotonic() - written >= PROGRESS_SECONDS:
                self._write(live.id, live.overlay())
                written = time.monotonic()

    def _end(self, live: LiveJob, ending: Ending) -> None:
        """Row, then event, then waiters; exactly once a job."""
        if self._running is not live:
            return
        status, error = _outcome(ending)
        if self._closing and status != "done":
            status, error = "interrupted", _stopped().to_dict()
        changes = {**live.overlay(), "status": status, "finished": time.time(), "error": error}
        if status == "done":
            changes["progress"] = 1.0
        self._write(live.id, changes)
        self._running = None
        self.events.publish(live.id, ending)
        self._changed.notify_all()

    # Rows and memory

    def _recover(self) -> None:
        self.store.interrupt_running(_stopped().to_dict(), time.time())
        for record in self.store.active_jobs():
            if record.error is not None:
                self._write(record.id, {"status": "failed", "finished": time.time(), "error": record.error})
            else:
                self._waiting.append(record.id)

    def _write(self, job_id: int, changes: dict[str, Any]) -> None:
        """Update the row, or remember the change when the disk is full."""
        with self._changed:
            wanted = {**self._unwritten.get(job_id, {}), **changes}
            try:
                self.store.update_job(job_id, wanted)
                self._unwritten.pop(job_id, None)
            except StorageError as error:
                log.warning("job %d: %s", job_id, error.message)
                self._unwritten[job_id] = wanted

    def _flush(self) -> None:
        with self._changed:
            for job_id in list(self._unwritten):
                self._write(job_id, {})

    def _present(self, record: JobRecord) -> JobRecord:
        """The row with what only memory knows: unwritten changes, live progress, position, unsaved pictures."""
        changes = dict(self._unwritten.get(record.id, ()))
        if self._running is not None and self._running.id == record.id:
            changes.update(self._running.overlay())
        with contextlib.suppress(ValueError):
            changes["position"] = self._waiting.index(record.id) + 1
        unsaved = self._pictures.in_memory(record.id)
        if unsaved:
            changes["images"] = tuple(sorted((*record.images, *unsaved), key=lambda image: image.index))
        return record.model_copy(update=changes) if changes else record


def _outcome(ending: Ending) -> tuple[JobStatus, dict[str, Any] | None]:
    if isinstance(ending, Failed):
        return "failed", ending.error
    if isinstance(ending, Cancelled):
        return "cancelled", None
    return "interrupted" if ending.interrupted else "done", None


def _stopped() -> EngineError:
    return EngineError("The server stopped while this job was running. Start it again with Retry.")
