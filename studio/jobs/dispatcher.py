"""One job through the engine: events in, events with URLs out. No thread and no queue here; see `studio.jobs.queue`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from studio.errors import EngineError, StudioError, error_text
from studio.jobs.cells import painted
from studio.jobs.latents import LatentStore
from studio.jobs.outputs import PictureStore, PreviewStore
from studio.schema.engine import CancelToken, Engine
from studio.schema.events import Cancelled, Event, Failed, Finished, ImageReady, Progress, Status
from studio.schema.jobs import JobRecord
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import ResolvedRequest

log = logging.getLogger(__name__)

Prepare = Callable[[GenerationRequest, RunOptions], ResolvedRequest]
Told = Status | Progress | ImageReady
Ending = Finished | Failed | Cancelled


class LiveJob:
    """What is known of the running job beyond its row. Written by the dispatcher's thread, read by any."""

    def __init__(self, job_id: int) -> None:
        self.id = job_id
        self.cancel = CancelToken()
        self.began = time.monotonic()
        self.started = time.time()
        self.message = ""
        self.steps: list[Progress] = []
        self.pictures: list[ImageReady] = []
        self.grid: str | None = None

    @property
    def last(self) -> Progress | None:
        """The newest step."""
        return self.steps[-1] if self.steps else None

    def overlay(self) -> dict[str, Any]:
        """Columns of the job row as they are at this moment."""
        last = self.last
        if last is None:
            return {"progress": 0.0, "step": 0, "steps": 0, "grid": self.grid}
        step, steps = last.batch * last.total + last.step, last.batches * last.total
        progress = min(1.0, step / steps) if steps else 0.0
        return {"progress": progress, "step": step, "steps": steps, "grid": self.grid}


class Dispatcher:
    """Runs jobs one at a time and keeps what they make."""

    def __init__(
        self,
        engine: Engine,
        prepare: Prepare,
        pictures: PictureStore,
        previews: PreviewStore,
        latents: LatentStore,
    ) -> None:
        self._engine = engine
        self._prepare = prepare
        self._pictures = pictures
        self._previews = previews
        self._latents = latents

    def run(self, record: JobRecord, live: LiveJob) -> Iterator[Told | Ending]:
        """Paint `record`; yields what to publish, the ending last and exactly once. Never raises."""
        try:
            ending = yield from self._paint(record, live)
        except StudioError as error:
            ending = Failed(error=error.to_dict())
        except Exception as error:
            log.exception("job %d failed", record.id)
            message = f"The job failed ({error_text(error)}). It can be run again; the server's log has the details."
            ending = Failed(error=EngineError(message).to_dict())
        self._previews.keep_steps(record.id, live.steps)
        yield ending

    def _paint(self, record: JobRecord, live: LiveJob) -> Generator[Told, None, Ending]:
        resolved = self._prepare(record.request, record.options)
        if live.cancel.mode == "interrupt":
            return Cancelled()
        self._latents.begin(record.id, resolved)
        painting = painted(self._engine, resolved, live.cancel, self._latents.find(resolved))
        try:
            for event in painting:
                if isinstance(event, (Finished, Failed, Cancelled)):
                    if isinstance(event, Finished):
                        live.grid = self._pictures.keep_grid(live.pictures, resolved, live.started)
                    return event
                told = self._keep(record, live, resolved, event)
                if told is not None:
                    yield told
        finally:
            painting.close()
        raise EngineError("The engine stopped without saying how the job ended.")

    def _keep(self, record: JobRecord, live: LiveJob, resolved: ResolvedRequest, event: Event) -> Told | None:
        if isinstance(event, Progress):
            live.message = ""
            live.steps.append(self._previews.keep(record.id, self._latents.keep(record.id, event)))
            return live.steps[-1]
        if isinstance(event, ImageReady):
            live.pictures.append(self._pictures.keep(record.id, event, resolved, live.started))
            return live.pictures[-1]
        if isinstance(event, Status):
            live.message = event.message
            return event
        return None  # Queued and Started are the queue's to say
