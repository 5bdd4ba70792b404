"""What becomes of finished pictures and step previews, also when they cannot be written.

    outputs/txt2img-images/...                                pictures: see `studio.jobs.saving`
    outputs/.studio/previews/<job>/<batch>-<step>-<index>.jpg

A picture that could not (or was not to) be written stays in memory, bounded, so that it can still be downloaded.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from studio.errors import NotFound, StorageError
from studio.jobs.saving import read_file, save_grid, save_picture
from studio.jobs.store import JobStore, image_record, image_url
from studio.paths import Paths
from studio.schema.events import ImageReady, Progress
from studio.schema.jobs import ImageRecord
from studio.schema.resolved import ResolvedRequest
from studio.settings import Settings

KEPT_PICTURES = 512 << 20
KEPT_PREVIEWS = 32 << 20
_STEPS = TypeAdapter(list[Progress])

Key = TypeVar("Key", bound=Hashable)


class Shelf(Generic[Key]):
    """Bytes in memory up to `limit`; the oldest go first. The newest is kept even when it is larger than that."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._items: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Key, data: bytes) -> list[Key]:
        """Keep `data`; returns the keys that had to go."""
        with self._lock:
            self._held += len(data) - len(self._items.pop(key, b""))
            self._items[key] = data
            gone = []
            while self._held > self._limit and len(self._items) > 1:
                oldest, dropped = self._items.popitem(last=False)
                self._held -= len(dropped)
                gone.append(oldest)
            return gone

    def get(self, key: Key) -> bytes | None:
        """The bytes, or None when they are gone."""
        with self._lock:
            return self._items.get(key)

    def keys(self) -> list[Key]:
        """What is held, oldest first."""
        with self._lock:
            return list(self._items)


class PictureStore:
    """Saves pictures, indexes them, and gives them back by id.

    Ids above 0 are rows with a file; ids below 0 are pictures that live in memory, of this run of the server only.
    """

    def __init__(
        self,
        store: JobStore,
        paths: Paths,
        settings: Callable[[], Settings] = Settings,
        limit: int = KEPT_PICTURES,
    ) -> None:
        self._store = store
        self._paths = paths
        self._settings = settings
        self._shelf: Shelf[int] = Shelf(limit)
        self._records: OrderedDict[int, ImageRecord] = OrderedDict()
        self._lock = threading.Lock()
        self._last_id = 0

    def keep(self, job_id: int, picture: ImageReady, resolved: ResolvedRequest, started: float) -> ImageReady:
        """Write the picture of a job that began at `started` (or hold it in memory) and index it.

        Returns the event as it is published: without bytes, with id and URL, and with a `warning` when saving failed.
        Never raises `StorageError`.
        """
        kept, model, warning = picture, resolved.model.name, None
        if resolved.options.save:
            kept = save_picture(picture, resolved, started, self._paths, self._settings())
            warning = kept.warning
            if warning and kept.path is None:
                warning += " The picture is kept in memory: download it before the server stops."
        record: ImageRecord | None = None
        if kept.path is not None:
            try:
                record = self._store.add_image(job_id, kept, Path(kept.path), model, time.time())
            except StorageError as error:
                warning = f"The picture was saved, but not listed: {error.message}"
        if record is None:
            record = self._hold(image_record(0, job_id, kept, kept.path, model, time.time()), picture.png)
        ready = {"png": b"", "image_id": record.id, "url": record.url, "path": record.path, "warning": warning}
        return picture.model_copy(update=ready)

    def keep_grid(self, pictures: Sequence[ImageReady], resolved: ResolvedRequest, started: float) -> str | None:
        """Write the grid of pictures that `keep` returned, if one is wanted; its path. Never raises."""
        return save_grid(pictures, self._png, resolved, started, self._paths, self._settings())

    def record(self, image_id: int) -> ImageRecord:
        """Raises `NotFound`."""
        if image_id > 0:
            return self._store.image(image_id)
        with self._lock:
            record = self._records.get(image_id)
        if record is None:
            raise NotFound(f"There is no picture {image_id}; it was never saved and is no longer in memory.")
        return record

    def data(self, image_id: int) -> bytes:
        """The PNG. Raises `NotFound`, also when its file was removed."""
        record = self.record(image_id)
        held = self._shelf.get(image_id)
        if held is not None:
            return held
        if record.path is None:
            raise NotFound(f"Picture {image_id} was never saved and is no longer in memory.")
        return read_file(Path(record.path), f"picture {image_id}")

    def in_memory(self, job_id: int) -> list[ImageRecord]:
        """The pictures of a job that have no row."""
        with self._lock:
            return [record for record in self._records.values() if record.job_id == job_id]

    def _png(self, picture: ImageReady) -> bytes:
        return self.data(picture.image_id or 0)

    def _hold(self, record: ImageRecord, png: bytes) -> ImageRecord:
        with self._lock:
            self._last_id -= 1
            held = record.model_copy(update={"id": self._last_id, "url": image_url(self._last_id)})
            self._records[held.id] = held
            for gone in self._shelf.put(held.id, png):
                del self._records[gone]
        return held


PreviewKey = tuple[int, int, int, int]
"""job, batch, step, index"""


class PreviewStore:
    """Step previews, a folder a job. Best effort: a job never fails for want of one."""

    def __init__(self, paths: Paths, limit: int = KEPT_PREVIEWS) -> None:
        self._root = paths.previews
        self._shelf: Shelf[PreviewKey] = Shelf(limit)

    def keep(self, job_id: int, progress: Progress) -> Progress:
        """Store the previews of one step; returns the event as it is published, with URLs instead of bytes."""
        urls = []
        for index, jpeg in enumerate(progress.previews):
            key = (job_id, progress.batch, progress.step, index)
            try:
                file = self._file(key)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(jpeg)  # a preview is not worth an fsync each step
            except OSError:
                self._shelf.put(key, jpeg)
            urls.append(f"/studio/v1/jobs/{job_id}/previews/{progress.batch}/{progress.step}/{index}.jpg")
        return progress.model_copy(update={"previews": (), "preview_urls": tuple(urls)})

    def data(self, key: PreviewKey) -> bytes:
        """The JPEG. Raises `NotFound`."""
        held = self._shelf.get(key)
        if held is not None:
            return held
        try:
            return self._file(key).read_bytes()
        except OSError:
            raise NotFound(
                f"There is no preview {key[3]} of step {key[2]} of batch {key[1]} of job {key[0]}."
            ) from None

    def keep_steps(self, job_id: int, steps: list[Progress]) -> None:
        """Remember the events of an ended job, so that its steps can be looked through later."""
        if any(step.preview_urls for step in steps):
            try:
                (self._root / str(job_id) / "steps.json").write_bytes(_STEPS.dump_json(steps))
            except OSError:
                return

    def steps(self, job_id: int) -> list[Progress]:
        """What `keep_steps` remembered; empty when it was pruned."""
        try:
            return _STEPS.validate_json((self._root / str(job_id) / "steps.json").read_bytes())
        except (OSError, ValidationError):
            return []

    def prune(self, keep: int) -> None:
        """Remove the previews of all but the newest `keep` jobs."""
        try:
            jobs = sorted(
                (entry for entry in self._root.iterdir() if entry.name.isdecimal()), key=lambda entry: int(entry.name)
            )
        except OSError:
            return
        for folder in jobs[: max(0, len(jobs) - keep)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _file(self, key: PreviewKey) -> Path:
        job, batch, step, index = (int(part) for part in key)
        return self._root / str(job) / f"{batch}-{step}-{index}.jpg"
