"""The latents of every step, kept so that any step can be decoded in full and a branch can begin there at once.

    outputs/.studio/latents/<job>/<batch>-<step>.safetensors     as the engine packs them
    outputs/.studio/latents/<job>/pictures.json                  which picture each batch is, for batches of one

They go to the disk as they come (the system's cache is the fast copy) and to a bounded shelf in memory where that is not
possible. On disk they are bounded too: the oldest job goes first, and of a job that is larger than the bound its oldest steps.
Nothing depends on them: what is gone is painted again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from studio.errors import NotFound
from studio.families.header import metadata
from studio.infotext import write_infotext
from studio.jobs.outputs import Shelf
from studio.paths import Paths
from studio.schema.events import Progress
from studio.schema.models import ModelInfo
from studio.schema.request import RunOptions
from studio.schema.resolved import EmbeddingUse, HiresPlan, LoraUse, RefinerPlan, ResolvedRequest

KEPT_IN_MEMORY = 64 << 20
_FILE = re.compile(r"(\d{1,9})-(\d{1,9})\.safetensors")
_PICTURES = "pictures.json"

_Use = TypeVar("_Use", LoraUse, EmbeddingUse, RefinerPlan)
StepKey = tuple[int, int, int]
"""job, batch, step (from 1)"""


class LatentStore:
    """Latents by job, batch and step. Best effort: a job never fails for want of them.

    Args:
        paths: where they go.
        limit: bytes they may take on disk, asked each time.
        memory: bytes that may be held where the disk takes none.
    """

    def __init__(self, paths: Paths, limit: Callable[[], int], memory: int = KEPT_IN_MEMORY) -> None:
        self._root = paths.latents
        self._limit = limit
        self._lock = threading.Lock()
        self._shelf: Shelf[StepKey] = Shelf(memory)
        self._pictures: dict[int, list[str]] = {}
        self._sizes: dict[StepKey, int] = {}  # oldest first
        for job in sorted(_numbers(self._root)):
            self._pictures[job] = _pictures_in(self._root / str(job))
            self._sizes.update(_sizes_in(self._root, job))

    def begin(self, job: int, resolved: ResolvedRequest) -> None:
        """Remember which pictures the job will paint, so that `find` knows them. Those of larger batches are not remembered:
        a batch rounds its sums otherwise than a single picture, which a branch always is.
        """
        if not resolved.options.keep_latents:
            return
        count = resolved.picture_count if resolved.batch_size == 1 else 0
        names = [picture_name(*resolved.picture(index)) for index in range(count)]
        with self._lock:
            self._pictures[job] = names
            try:
                folder = self._root / str(job)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / _PICTURES).write_text(json.dumps(names))
            except OSError:
                return

    def keep(self, job: int, progress: Progress) -> Progress:
        """Store the latents of one step; returns the event as it is published, without bytes."""
        if not progress.latents:
            return progress
        key, size = (job, progress.batch, progress.step), len(progress.latents)
        with self._lock:
            try:
                self._file(key).parent.mkdir(parents=True, exist_ok=True)
                self._file(key).write_bytes(progress.latents)  # latents are not worth an fsync each step
                self._sizes[key] = size
                self._make_room(job)
            except OSError:
                with contextlib.suppress(OSError):
                    self._file(key).unlink(missing_ok=True)
                self._shelf.put(key, progress.latents)
        return progress.model_copy(update={"latents": b"", "kept": self.has(key)})

    def has(self, key: StepKey) -> bool:
        """Whether `data` has them."""
        return key in self._sizes or self._shelf.get(key) is not None

    def marked(self, job: int, steps: list[Progress]) -> list[Progress]:
        """`steps` of a job, each saying whether its latents are still there."""
        return [step.model_copy(update={"kept": self.has((job, step.batch, step.step))}) for step in steps]

    def data(self, key: StepKey) -> bytes:
        """The bytes of one step of one batch. Raises `NotFound`."""
        held = self._shelf.get(key)
        if held is not None:
            return held
        try:
            return self._file(key).read_bytes()
        except OSError:
            job, batch, step = key
            raise NotFound(
                f"The latents of step {step} of batch {batch} of job {job} are not kept, or not any more."
            ) from None

    def last_painter(self, job: int, batch: int) -> str:
        """Path of the checkpoint that painted the newest kept step of a batch: after the job, the one that finished it. Else ""."""
        with self._lock:
            keys = [key for key in (*self._sizes, *self._shelf.keys()) if key[:2] == (job, batch)]
        try:
            return painter_of(self.data(max(keys))) if keys else ""
        except NotFound:
            return ""

    def find(self, resolved: ResolvedRequest) -> bytes:
        """What `resolved`, a branch, begins with, if a job painted its origin and left it here; else nothing."""
        if resolved.branch is None:
            return b""
        wanted = picture_name(resolved.branch.origin, 0)
        for job, names in reversed(list(self._pictures.items())):
            for batch, name in enumerate(names):
                key = (job, batch, resolved.branch.step)
                if name == wanted and self.has(key):
                    try:
                        return self.data(key)
                    except NotFound:
                        continue
        return b""

    def prune(self, keep: int) -> None:
        """Remove the latents of all but the newest `keep` jobs."""
        with self._lock:
            for job in list(self._pictures)[: max(0, len(self._pictures) - keep)]:
                self._forget(job)

    def _make_room(self, job: int) -> None:
        """Remove what is over the bound, oldest first: whole jobs, and steps of `job` itself."""
        held, limit = sum(self._sizes.values()), self._limit()
        while held > limit and self._sizes:
            oldest = next(iter(self._sizes))
            gone = [key for key in self._sizes if key[0] == oldest[0]] if oldest[0] != job else [oldest]
            held -= sum(self._sizes[key] for key in gone)
            if oldest[0] != job:
                self._forget(oldest[0])
            else:
                self._file(oldest).unlink(missing_ok=True)
                del self._sizes[oldest]

    def _forget(self, job: int) -> None:
        shutil.rmtree(self._root / str(job), ignore_errors=True)
        self._pictures.pop(job, None)
        for key in [key for key in self._sizes if key[0] == job]:
            del self._sizes[key]

    def _file(self, key: StepKey) -> Path:
        job, batch, step = (int(part) for part in key)
        return self._root / str(job) / f"{batch}-{step}.safetensors"


def painter_of(data: bytes) -> str:
    """Path of the checkpoint that painted a step, from the header of its latents; "" where none is named."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        return metadata(json.loads(data[8 : 8 + length])).get("painter", "")
    except (struct.error, ValueError, AttributeError):
        return ""


def picture_name(resolved: ResolvedRequest, index: int) -> str:
    """A name that two requests share when they paint the same picture from the same files: 64 hex digits.

    It is made of the picture's text, which names all that acts on the pixels, and of the files' paths, sizes and times instead of
    their hashes, which may become known between two jobs.
    """
    refiner, hires = resolved.refiner, resolved.hires
    files = [*resolved.checkpoints, *resolved.all_vaes, *resolved.all_text_encoders, *resolved.upscaler_models]
    files += [*(use.model for use in resolved.all_loras), *(use.model for use in resolved.all_embeddings)]
    files += [use.model for use in resolved.all_hypernetworks]
    bare = resolved.model_copy(
        update={
            "model": _unhashed(resolved.model),
            "vae": resolved.vae and _unhashed(resolved.vae),
            "loras": tuple(_without_hash(use) for use in resolved.loras),
            "embeddings": tuple(_without_hash(use) for use in resolved.embeddings),
            "refiner": refiner and _without_hash(refiner),
            "hires": hires and _hires_without_hashes(hires),
            "options": RunOptions(),
        }
    )
    facts = [write_infotext(bare, index, ""), *((file.path, file.size, file.mtime) for file in files)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _hires_without_hashes(plan: HiresPlan) -> HiresPlan:
    changes = {
        "model": _unhashed(plan.model),
        "upscaler_model": plan.upscaler_model and _unhashed(plan.upscaler_model),
        "loras": tuple(_without_hash(use) for use in plan.loras),
        "embeddings": tuple(_without_hash(use) for use in plan.embeddings),
        "refiner": plan.refiner and _without_hash(plan.refiner),
    }
    return plan.model_copy(update=changes)


def _without_hash(use: _Use) -> _Use:
    return use.model_copy(update={"model": _unhashed(use.model)})


def _unhashed(model: ModelInfo) -> ModelInfo:
    return model.model_copy(update={"short_hash": None, "model_id": None})


def _numbers(folder: Path) -> Iterator[int]:
    """The sub-folders that are named by a number."""
    try:
        yield from (int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())
    except OSError:
        return


def _pictures_in(folder: Path) -> list[str]:
    try:
        names = json.loads((folder / _PICTURES).read_text())
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _sizes_in(root: Path, job: int) -> dict[StepKey, int]:
    """What lies in a job's folder, oldest first."""
    found: dict[StepKey, int] = {}
    try:
        for entry in (root / str(job)).iterdir():
            if named := _FILE.fullmatch(entry.name):
                found[job, int(named[1]), int(named[2])] = entry.stat().st_size
    except OSError:
        return found
    return dict(sorted(found.items()))
