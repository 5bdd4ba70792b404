"""What waits, what runs, what became of it."""

from __future__ import annotations

import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.engine.fake import FakeEngine
from studio.errors import EngineError, NotFound, OutOfMemory, QueueFull, StorageError
from studio.jobs import JobQueue
from studio.paths import Paths
from studio.schema.engine import CancelToken
from studio.schema.events import Cancelled, Event, Failed, Finished, ImageReady, JobEvent, Progress, Queued, Started
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import ResolvedRequest

Small = Callable[..., GenerationRequest]
QueueMaker = Callable[..., JobQueue]
OPTIONS = RunOptions()


def drain(queue: JobQueue, job_id: int, seconds: float = 10.0) -> list[JobEvent]:
    """All events of a job up to its end."""
    found = []
    with queue.events.subscribe(0) as events:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            event = events.get(0.5)
            if event is not None and event.job_id == job_id:
                found.append(event)
                if isinstance(event.event, (Finished, Failed, Cancelled)):
                    return found
    raise AssertionError(f"job {job_id} did not end: {found}")


def test_a_job_paints_saves_and_tells(make_queue: QueueMaker, small: Small, paths: Paths) -> None:
    queue = make_queue()
    job = queue.submit(small(batch_size=2), OPTIONS, "api")
    assert job.status in ("queued", "running")
    done = queue.wait(job.id, 10)
    assert (done.status, done.progress, done.step, done.steps) == ("done", 1.0, 3, 3)
    assert done.source == "api"
    assert done.created <= (done.started or 0) <= (done.finished or 0)
    events = [entry.event for entry in drain(queue, job.id)]
    assert [type(event) for event in events] == [Queued, Started, *[Progress] * 3, *[ImageReady] * 2, Finished]
    pictures = [event for event in events if isinstance(event, ImageReady)]
    assert [picture.png for picture in pictures] == [b"", b""]
    assert [record.id for record in done.images] == [picture.image_id for picture in pictures]
    for number, record in enumerate(done.images):
        path = Path(record.path or "")
        assert re.fullmatch(rf"outputs/txt2img-images/\d{{4}}-\d\d-\d\d/{number:05d}-{5 + number}\.png",
                            path.relative_to(paths.root).as_posix())  # fmt: skip
        assert path.read_bytes() == queue.image_bytes(record.id)
        assert record.model == "tiny"
        assert record.infotext.endswith(f"Seed: {5 + number}")
    assert [record.id for record in queue.images()] == [record.id for record in reversed(done.images)]


def test_a_job_of_several_pictures_leaves_a_grid(make_queue: QueueMaker, small: Small, paths: Paths) -> None:
    queue = make_queue(save_to_dirs=False)
    single = queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10)
    with pytest.raises(NotFound, match=f"Job {single.id} has no grid"):
        queue.grid_bytes(single.id)
    job = queue.wait(queue.submit(small(batch_count=3), OPTIONS, "ui").id, 10)
    assert job.grid == str(paths.outputs / "txt2img-grids" / "grid-0000.png")
    assert len(job.images) == 3
    assert queue.grid_bytes(job.id) == Path(job.grid).read_bytes()
    Path(job.grid).unlink()
    with pytest.raises(NotFound, match=f"The file of the grid of job {job.id} is gone"):
        queue.grid_bytes(job.id)


def test_an_interrupted_job_leaves_a_grid_of_what_is_finished(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(FakeEngine(step_seconds=0.02))
    job = queue.submit(small(batch_size=2, batch_count=50), OPTIONS, "ui")
    while len(queue.job(job.id).images) < 2:
        time.sleep(0.01)
    queue.interrupt()
    ended = queue.wait(job.id, 10)
    assert ended.status == "interrupted"
    assert ended.grid is not None


def test_previews_are_files_and_fill_the_strip_of_a_late_page(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue()
    job = queue.wait(queue.submit(small(batch_size=2, batch_count=2), OPTIONS, "ui").id, 10)
    steps = queue.progress_events(job.id)
    assert [(step.batch, step.step) for step in steps] == [(b, s) for b in (0, 1) for s in (1, 2, 3)]
    assert steps[4].preview_urls[1] == f"/studio/v1/jobs/{job.id}/previews/1/2/1.jpg"
    assert queue.preview_bytes(job.id, 1, 2, 1)[:2] == b"\xff\xd8"
    with pytest.raises(NotFound):
        queue.preview_bytes(job.id, 0, 4, 0)


def test_previews_of_old_jobs_go(make_queue: QueueMaker, small: Small, paths: Paths) -> None:
    queue = make_queue(keep=2)
    jobs = [queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10) for _ in range(4)]
    assert sorted(int(entry.name) for entry in paths.previews.iterdir()) == [job.id for job in jobs[1:]]
    assert queue.progress_events(jobs[0].id) == []


def test_first_in_first_out_with_positions_and_a_limit(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(FakeEngine(), max_queue=3, start=False)
    jobs = [queue.submit(small(f"{n}"), OPTIONS, "ui") for n in range(3)]
    assert [job.position for job in queue.jobs(active=True)] == [1, 2, 3]
    with pytest.raises(QueueFull, match="3 jobs are waiting"):
        queue.submit(small(), OPTIONS, "ui")
    assert queue.cancel(jobs[1].id).status == "cancelled"
    assert [job.id for job in queue.jobs(active=True)] == [jobs[0].id, jobs[2].id]
    assert queue.job(jobs[2].id).position == 2
    queue.start()
    assert queue.wait(jobs[2].id, 10).status == "done"
    started = [entry.job_id for entry in events_so_far(queue) if isinstance(entry.event, Started)]
    assert started == [jobs[0].id, jobs[2].id]
    assert [job.id for job in queue.jobs(limit=2)] == [jobs[2].id, jobs[1].id]
    assert [job.id for job in queue.jobs(limit=2, before=jobs[1].id)] == [jobs[0].id]


def events_so_far(queue: JobQueue) -> list[JobEvent]:
    with queue.events.subscribe(0) as events:
        return list(iter(lambda: events.get(0), None))


def test_interrupt_keeps_what_is_finished(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(FakeEngine(step_seconds=0.02))
    job = queue.submit(small(batch_count=50), OPTIONS, "ui")
    with queue.events.subscribe(0) as events:
        while not isinstance(getattr(events.get(5), "event", None), ImageReady):
            pass
    queue.interrupt()
    ended = queue.wait(job.id, 10)
    assert ended.status == "interrupted"
    assert 1 <= len(ended.images) < 50
    assert ended.error is None
    following = queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10)
    assert following.status == "done"


def test_cancel_of_the_running_job_before_any_picture(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(FakeEngine(step_seconds=0.02))
    job = queue.submit(small(steps=150), OPTIONS, "ui")
    while queue.job(job.id).step == 0:
        time.sleep(0.005)
    running = queue.running()
    assert running is not None
    assert 0 < running.job.progress < 1
    assert running.last is not None
    queue.cancel(job.id)
    assert queue.wait(job.id, 10).status == "cancelled"
    assert queue.running() is None
    assert queue.cancel(job.id).status == "cancelled"


def test_skip_goes_on_with_the_next_batch(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(FakeEngine(step_seconds=0.02))
    job = queue.submit(small(batch_count=2, steps=20), OPTIONS, "ui")
    while queue.job(job.id).step == 0:
        time.sleep(0.005)
    queue.skip()
    ended = queue.wait(job.id, 10)
    assert ended.status == "done"
    assert [image.index for image in ended.images] == [1]


@pytest.mark.parametrize(
    "error, code",
    [(OutOfMemory("no room"), "out_of_memory"), (ZeroDivisionError("1/0"), "engine"), (EngineError("x"), "engine")],
)
def test_a_failed_job_does_not_stop_the_queue(
    make_queue: QueueMaker, small: Small, error: Exception, code: str
) -> None:
    engine = FakeEngine(fail_with=error)
    queue = make_queue(engine)
    failed = queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == code
    unforeseen = "The job failed (ZeroDivisionError: 1/0). It can be run again; the server's log has the details."
    assert failed.error["message"] == (unforeseen if isinstance(error, ZeroDivisionError) else str(error))
    engine.fail_with = None
    again = queue.retry(failed.id)
    assert (again.request, again.source) == (failed.request, failed.source)
    assert queue.wait(again.id, 10).status == "done"


class Silent(FakeEngine):
    """Ends without saying how."""

    def run(self, resolved: ResolvedRequest, cancel: CancelToken) -> Iterator[Event]:
        return iter(())


def test_an_engine_that_just_stops_fails_the_job(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(Silent())
    job = queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10)
    assert job.status == "failed"


def test_waiting_jobs_survive_a_restart_and_the_running_one_does_not_rerun(
    make_queue: QueueMaker, small: Small
) -> None:
    slow = FakeEngine(step_seconds=0.05)
    queue = make_queue(slow)
    first = queue.submit(small("first", steps=150), OPTIONS, "ui")
    second = queue.submit(small("second"), OPTIONS, "ui")
    while queue.job(first.id).step == 0:
        time.sleep(0.005)
    queue.close()
    engine = FakeEngine()
    queue = make_queue(engine)
    assert queue.wait(second.id, 10).status == "done"
    stopped = queue.job(first.id)
    assert stopped.status == "interrupted"
    assert stopped.error is not None
    assert "server stopped" in stopped.error["message"]
    assert [run.positive.text for run in engine.runs] == ["second"]
    assert queue.retry(first.id).id > second.id


def test_a_picture_that_cannot_be_written_stays_downloadable(
    make_queue: QueueMaker, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"The disk is full: nothing more can be written to {path.parent}.")

    monkeypatch.setattr("studio.jobs.saving.atomic_write", full)
    queue = make_queue()
    job = queue.wait(queue.submit(small(batch_count=2), OPTIONS, "ui").id, 10)
    assert job.status == "done"
    assert [image.path for image in job.images] == [None, None]
    assert [image.index for image in job.images] == [0, 1]
    assert queue.image_bytes(job.images[0].id)[:4] == b"\x89PNG"
    warnings = [e.event.warning for e in drain(queue, job.id) if isinstance(e.event, ImageReady)]
    assert all("disk is full" in (warning or "") and "memory" in (warning or "") for warning in warnings)
    assert queue.images() == []


def test_a_picture_that_need_not_be_saved_is_only_in_memory(make_queue: QueueMaker, small: Small, paths: Paths) -> None:
    queue = make_queue()
    job = queue.wait(queue.submit(small(), RunOptions(save=False), "sdapi").id, 10)
    assert queue.image_bytes(job.images[0].id)[:4] == b"\x89PNG"
    assert not (paths.outputs / "txt2img-images").exists()
    assert [e.event.warning for e in drain(queue, job.id) if isinstance(e.event, ImageReady)] == [None]


def test_a_database_that_cannot_be_written_does_not_lose_the_job(
    make_queue: QueueMaker, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue(start=False)
    job = queue.submit(small(), OPTIONS, "ui")

    def full(*values: object) -> None:
        raise StorageError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(queue.store, "update_job", full)
        patch.setattr(queue.store, "add_image", full)
        queue.start()
        ended = queue.wait(job.id, 10)
        assert ended.status == "done"
        assert queue.image_bytes(ended.images[0].id)[:4] == b"\x89PNG"
        assert Path(ended.images[0].path or "").exists()
        assert queue.store.job(job.id).status == "queued"
        assert queue.jobs(active=True) == []
    queue.wait(queue.submit(small(), OPTIONS, "ui").id, 10)
    assert queue.store.job(job.id).status == "done"


def test_a_hundred_jobs_from_many_threads(make_queue: QueueMaker, small: Small) -> None:
    queue = make_queue(max_queue=100)
    ids: list[int] = []

    def ask(name: int) -> None:
        for n in range(20):
            ids.append(queue.submit(small(f"{name}-{n}"), OPTIONS, "ui").id)  # noqa: PERF401

    tracemalloc.start()
    threads = [threading.Thread(target=ask, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job_id in ids:
        assert queue.wait(job_id, 30).status == "done"
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 50 << 20
    assert len({queue.job(job_id).images[0].path for job_id in ids}) == 100
    seqs = [entry.seq for entry in events_so_far(queue)]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    order = [entry.job_id for entry in events_so_far(queue) if isinstance(entry.event, Started)]
    assert order == sorted(ids)
