"""`RunManager`: the training runs of one installation.

One thread watches the folders: it learns what became of processes (also of those that another server or the command line
started), starts the next waiting run where none trains, and lets runs that paused for a picture go on. Every run is a detached
process, so the end of the server ends none; what a run is, its folder says.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import psutil  # type: ignore[import-untyped]

from studio.errors import InvalidRequest, NotAllowed, NotFound, QueueFull, StudioError
from studio.paths import Paths
from studio.runs.curves import CurveReader
from studio.runs.folder import RunView, put_in_queue, queued_at, run_folders, take_from_queue, trash
from studio.runs.gate import PaintingGate
from studio.runs.processes import fail, family, never_began
from studio.runs.samples import sample_bytes, samples_of
from studio.schema.runs import RESUMABLE, RunCurves, RunDetail, RunEvents, RunLog, RunRecord, RunSample
from studio.schema.training import TrainingConfig
from studio.settings import Settings
from studio.trainer import log_tail, start_worker
from studio.training.caches import prune
from studio.training.runs import RunFolder, new_run, read_lines, worker_command
from studio.training.sitting import last_sitting

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
SCAN_EVERY = 8
"""In every so-manieth round all folders are read, in the others only those of runs that wait or train."""
KEPT_CURVES = 8
"""Runs whose curves are held in memory."""
Command = Callable[[RunFolder, str], list[str]]


class RunManager:
    """See the module. All methods are callable from any thread.

    Args:
        settings: the settings as they are now (device, turns, length of the queue).
        painting_device: the device that pictures are painted on ("cpu", "cuda:0"); empty while that is not known.
        check: raises `StudioError` for a configuration that cannot run here.
        command: what trains a run on a device; for tests.
    """

    def __init__(
        self,
        paths: Paths,
        settings: Callable[[], Settings],
        *,
        painting_device: Callable[[], str] = lambda: "",
        check: Callable[[TrainingConfig], None] = lambda config: None,
        command: Command | None = None,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._painting_device = painting_device
        self._check = check
        self._news: Callable[[], None] = lambda: None
        self._command = command or (lambda run, device: worker_command(run, sys.executable, device=device))
        self._lock = threading.RLock()
        self._views: dict[str, RunView] = {}
        self._records: tuple[RunRecord, ...] = ()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._curves: OrderedDict[str, CurveReader] = OrderedDict()
        self._wake, self._closing = threading.Event(), False
        self._untidy = True
        """Whether a run may have filled the caches since they were last pruned."""
        self._thread: threading.Thread | None = None
        self.gate = PaintingGate(lambda: self._settings().training_and_painting, self._rivals)
        self.look()

    # Life

    def start(self, news: Callable[[], None]) -> None:
        """Begin to watch, and to start what waits; `news` is called after anything changed. Idempotent."""
        with self._lock:
            self._news = news
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._watch, name="training", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Watch no longer. Runs train on; those that paused for a picture go on."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)
        with self._lock:
            self.gate.release(list(self._views.values()), now=True)

    # Orders

    def create(self, config: TrainingConfig) -> RunRecord:
        """A new run, put into the queue. Raises `QueueFull`, `StorageError`, and what `check` raises."""
        self._check(config)
        with self._lock:
            self._room()
            run = new_run(config, self._paths.runs)
            put_in_queue(run)
            return self._changed(run.id)

    def duplicate(self, run_id: str) -> RunRecord:
        """A new run with the configuration of an old one. Raises `NotFound`, `InvalidRequest` and as `create`."""
        return self.create(self._view(run_id).folder.config())

    def stop(self, run_id: str) -> RunRecord:
        """Let it save and end, or wait no more. Nothing happens to one that does neither. Raises `NotFound`."""
        with self._lock:
            view = self._view(run_id)
            take_from_queue(view.folder)
            if view.active:
                view.folder.ask("stop")
            return self._changed(run_id)

    def resume(self, run_id: str) -> RunRecord:
        """Let it train on: out of a pause at once, otherwise when its turn comes. Raises `InvalidRequest` for a finished one."""
        with self._lock:
            view = self._view(run_id)
            if view.active:
                if view.folder.asked("stop"):
                    raise InvalidRequest(f"{run_id} is stopping; it can be resumed when it has.")
                view.folder.withdraw("pause")
            elif view.state() in RESUMABLE:
                view.folder.config()  # says what is wrong with one that cannot be read
                self._room()
                view.folder.forget_wishes()
                put_in_queue(view.folder)
            elif view.state() == "finished":
                raise InvalidRequest(f"{run_id} is finished. Duplicate it to train again.")
            return self._changed(run_id)

    def pause(self, run_id: str) -> RunRecord:
        """Let it wait at the next step edge, until it is resumed. Raises `InvalidRequest` when it does not run or cannot pause."""
        return self._wish(run_id, "pause")

    def save(self, run_id: str) -> RunRecord:
        """Let it save its state and its result so far. Raises as `pause`."""
        return self._wish(run_id, "save")

    def sample(self, run_id: str) -> RunRecord:
        """Let it paint its samples. Raises as `pause`."""
        return self._wish(run_id, "sample")

    def force_stop(self, run_id: str) -> RunRecord:
        """End the process of a run that was asked to stop half a minute ago and has not; it can be resumed from its last checkpoint.

        Raises `NotAllowed` before that.
        """
        with self._lock:
            view = self._view(run_id)
            if view.active and not view.may_be_forced():
                raise NotAllowed(
                    f"{run_id} is ended by force only when it has not stopped 30 seconds after it was asked to."
                )
            for process in family(view, self._processes.get(run_id)):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return self._changed(run_id)

    def delete(self, run_id: str) -> None:
        """Move the folder of a run that is not active to the trash beside the runs. Raises `InvalidRequest` for an active one."""
        with self._lock:
            view = self._view(run_id)
            if view.active:
                raise InvalidRequest(f"{run_id} is running. Stop it before deleting it.")
            trash(view.folder)
            self._views.pop(run_id)
            self._curves.pop(run_id, None)
        self.look()

    # Looking

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, newest first, as last looked at (four times a second once started)."""
        return self._records

    def run(self, run_id: str) -> RunRecord:
        """One run as it is now. Raises `NotFound`."""
        with self._lock:
            self._view(run_id)
            return self._changed(run_id)

    def detail(self, run_id: str) -> RunDetail:
        """The same with its configuration."""
        config = self._view(run_id).config
        return RunDetail(run=self.run(run_id), config=config.model_dump(mode="json") if config else None)

    def events(self, run_id: str, offset: int, limit: int) -> RunEvents:
        """What its events.jsonl holds after byte `offset`, about `limit` bytes at most. Raises `NotFound`."""
        lines, reached = read_lines(self._view(run_id).folder, offset, limit)
        return RunEvents(events=lines, offset=reached)

    def curves(self, run_id: str, stage: str | None = None) -> RunCurves:
        """Its measurements over the steps. Raises `NotFound`."""
        with self._lock:
            folder = self._view(run_id).folder
            reader = self._curves.setdefault(run_id, CurveReader(folder))
            self._curves.move_to_end(run_id)
            while len(self._curves) > KEPT_CURVES:
                self._curves.popitem(last=False)
            return reader.read(stage)

    def log(self, run_id: str, size: int) -> RunLog:
        """The last `size` bytes of its log. Raises `NotFound`."""
        folder = self._view(run_id).folder
        length = folder.log.stat().st_size if folder.log.exists() else 0
        return RunLog(text=log_tail(folder, size), size=length)

    def samples(self, run_id: str) -> list[RunSample]:
        """Pictures painted while it trained, by step and prompt. Raises `NotFound`."""
        return samples_of(self._view(run_id))

    def sample_bytes(self, run_id: str, name: str) -> bytes:
        """The PNG file of one of them. Raises `NotFound`."""
        return sample_bytes(self._view(run_id), name)

    # The watch

    def look(self, *, everything: bool = True) -> None:
        """Read the folders now (not `everything`: only of runs that wait or train), and act on what they say."""
        with self._lock:
            self._scan(everything)
            self._reap()
            if self._thread is not None and not self._closing:
                self.gate.release(list(self._views.values()))
                self._start_next()
            order = [view.folder.id for view in self._waiting()]
            views = sorted(self._views.values(), key=lambda view: (-view.created, view.folder.id))
            before = {record.id: record for record in self._records}
            places = {run_id: place for place, run_id in enumerate(order, 1)}
            records = (view.record(places.get(view.folder.id), self._paths.loras) for view in views)
            fresh = tuple(_revised(record, before.get(record.id)) for record in records)
            changed, self._records = fresh != self._records, fresh
        if changed:
            self._news()

    def _watch(self) -> None:
        round_ = 0
        while not self._closing:
            try:
                self.look(everything=round_ % SCAN_EVERY == 0)
                self.tidy()
            except Exception:
                log.exception("training runs could not be looked at")
            round_ += 1
            self._wake.wait(WATCH_SECONDS)
            self._wake.clear()

    def _scan(self, everything: bool) -> None:
        if not everything:
            for view in self._views.values():
                if view.active or queued_at(view.folder) is not None:
                    view.refresh()
            return
        found = {folder.id: folder for folder in run_folders(self._paths.runs)}
        for gone in self._views.keys() - found.keys():
            del self._views[gone]
        for run_id, folder in found.items():
            if run_id not in self._views:
                self._views[run_id] = RunView.of(folder)
            self._views[run_id].refresh()

    def _reap(self) -> None:
        """Take note of processes started here that have sat down, or ended."""
        for run_id, process in list(self._processes.items()):
            code, view = process.poll(), self._views.get(run_id)
            if view is not None and view.started_here:
                view.sitting = last_sitting(view.folder)
                began = view.sitting != view.before
                view.started_here = not began and code is None
                if not began and code is not None:
                    never_began(view, code)
                view.refresh()
            if code is not None:
                del self._processes[run_id]
                self._untidy = True

    def tidy(self) -> None:
        """Prune the caches, when this is new and after a run that it started has ended."""
        if not self._untidy:
            return
        self._untidy = False
        if most := self._settings().training_cache_gb:
            with self._lock:
                began = [view.sitting.started for view in self._views.values() if view.living and view.sitting]
            prune(self._paths.training_caches, int(most * 1e9), spare=min(began, default=time.time()))

    def _start_next(self) -> None:
        if self.gate.holds_back:
            return
        busy = {self._device(view) for view in self._views.values() if view.active}
        for view in self._waiting():
            if (device := self._device(view)) not in busy:
                busy.add(device)
                self._begin(view)

    def _begin(self, view: RunView) -> None:
        view.before = view.sitting
        try:
            command = self._command(view.folder, self._settings().device)
            self._processes[view.folder.id] = start_worker(view.folder, command)
            view.started_here = True
            view.refresh()  # it says already that it starts
        except (OSError, StudioError) as error:
            fail(view, f"The training process could not be started: {error}")
        take_from_queue(view.folder)

    # Small things

    def _wish(self, run_id: str, command: Literal["pause", "save", "sample"]) -> RunRecord:
        with self._lock:
            view = self._view(run_id)
            if not view.active:
                raise InvalidRequest(f"{run_id} is {view.state()}: only a running one can be asked to {command}.")
            if command not in view.obeys:
                kind = view.config.method.kind if view.config else "unknown"
                raise InvalidRequest(f"Runs of the method {kind!r} cannot {command}.")
            view.folder.ask(command)
            return self._changed(run_id)

    def _view(self, run_id: str) -> RunView:
        with self._lock:
            view = self._views.get(run_id)
            if view is None or not view.folder.path.is_dir():  # a folder may be removed by hand between two looks
                self._scan(everything=True)
                view = self._views.get(run_id)
        if view is None:
            raise _unknown(run_id)
        return view

    def _changed(self, run_id: str) -> RunRecord:
        """Look at everything again, since an order was carried out; the run's record."""
        self.look()
        record = next((record for record in self._records if record.id == run_id), None)
        if record is None:
            raise _unknown(run_id)
        return record

    def _room(self) -> None:
        most = self._settings().max_queue
        if len(self._waiting()) >= most:
            raise QueueFull(f"{most} runs are waiting, and no more may: stop one of them.")

    def _waiting(self) -> list[RunView]:
        times = ((queued_at(view.folder), view) for view in self._views.values() if not view.active)
        waiting = [(at, view.folder.id, view) for at, view in times if at is not None]
        return [view for _, _, view in sorted(waiting, key=lambda entry: entry[:2])]

    def _device(self, view: RunView) -> str:
        """What the run trains on: "cpu", "cuda", "mps"; empty where that is the painting device, which is not known yet."""
        if view.config is None or not view.config.method.on_accelerator:
            return "cpu"
        known, chosen = self._painting_device().split(":")[0], self._settings().device
        return known or ("" if chosen == "auto" else chosen)

    def _rivals(self) -> list[RunView]:
        """Active runs on the painting device, as they are now."""
        painting = self._painting_device().split(":")[0]
        with self._lock:
            active = [view for view in self._views.values() if view.active]
            for view in active:
                view.refresh()
            return [view for view in active if view.active and (not painting or self._device(view) in ("", painting))]


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"There is no training run {run_id[:100]!r}.")


def _revised(record: RunRecord, before: RunRecord | None) -> RunRecord:
    """`record` with its revision, by which it is known whether the answer to an order or the stream tells of the newer state."""
    if before is None:
        return record
    same = record.model_copy(update={"revision": before.revision})
    return before if same == before else same.model_copy(update={"revision": before.revision + 1})
