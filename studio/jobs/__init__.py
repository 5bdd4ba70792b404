"""The job queue: SQLite rows, one dispatcher thread that feeds the engine, and the stream of events that tells about it.

`JobQueue` is what the rest of the program uses. `store` owns the rows, `outputs` the files, `events` the live events,
`sketches` the pictures that are no jobs, `lock` the rule "one server a data folder". No part of it knows how pictures are made: the engine comes in through the
protocol of `studio.schema.engine`.
"""

from studio.jobs.events import EventHub, Subscription
from studio.jobs.queue import JobQueue, Running
from studio.jobs.sketches import Sketch, SketchLane
from studio.jobs.store import JobStore

__all__ = ["EventHub", "JobQueue", "JobStore", "Running", "Sketch", "SketchLane", "Subscription"]
