"""`Datasets`: which data sets may be read, what they hold, and their captions. Composition: the faces use only this. No torch.

A data set is named by its path or, when it was uploaded, by the name of its folder in `datasets/`.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studio.captioning import CaptionRunner
from studio.errors import DatasetError, InvalidRequest, NotAllowed, NotFound
from studio.infotext.thumbnails import as_jpeg
from studio.paths import Paths, safe_join
from studio.runs.check import DATA_PATH
from studio.schema.training import ScratchMethod, TrainingConfig
from studio.schema.training_data import CaptionEdit, CaptionPage, DatasetReport, DatasetSettings
from studio.schema.training_parts import Part
from studio.schema.training_tuning import TuningMethod
from studio.training.data.archive import Unpacked, unpack
from studio.training.data.dataset import Dataset, Progress, edit_captions, read_dataset
from studio.training.data.report import caption_page, describe

if TYPE_CHECKING:
    from studio.engine.hardware import DeviceName
    from studio.training.captioning import Captioned

PAGE = 200
"""Pictures whose captions are sent at once, at most."""
THUMBNAIL = 512
"""Longest side of a picture's small version, in pixels."""
RECENT, RECENT_SECONDS = 4, 20.0
"""Data sets that are kept as they were read, and how long: a page of thumbnails asks a hundred times in a second."""


def unwatched(done: int, total: int) -> None:
    """Progress that nobody looks at."""


class Datasets:
    """The data sets of one installation. Thread-safe."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._recent: dict[DatasetSettings, tuple[float, Dataset]] = {}
        self.captioning = CaptionRunner(paths, self._forget)

    def uploads(self) -> list[str]:
        """Names of the uploaded data sets."""
        folder = self._paths.datasets
        return (
            sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
            if folder.is_dir()
            else []
        )

    def placed(
        self, settings: DatasetSettings, upload: str | None = None, *, anywhere: bool, field: str = "path"
    ) -> DatasetSettings:
        """`settings` with the whole path of their data set; a path is relative to the data folder.

        `field` is what errors call the path. `anywhere` is for callers at this machine: others reach only what lies below the data folder, links followed. Raises
        `NotAllowed`, `NotFound` for an upload that is not there, `InvalidRequest` unless one of path and upload is given.
        """
        if bool(settings.path) == (upload is not None):
            message = f"The data set is {'named twice' if settings.path else 'missing'}: give its path or the name of an upload, one of both."
            raise InvalidRequest(message, field=field)
        if upload is not None:
            path = safe_join(self._paths.datasets, upload)
            if not path.is_dir():
                raise NotFound(f"There is no upload {upload!r}.", field="upload")
            return settings.model_copy(update={"path": str(path)})
        root = self._paths.root.resolve()
        try:
            path = (root / Path(settings.path).expanduser()).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidRequest(f"path = {settings.path[:80]!r} is no path: {error}.", field=field) from error
        if not anywhere and root not in path.parents:
            message = "Only data sets below the data folder can be used from another machine, or while the studio is open to others."
            raise NotAllowed(message, field=field)
        return settings.model_copy(update={"path": str(path)})

    def placed_training(self, config: TrainingConfig, *, anywhere: bool) -> TrainingConfig:
        """The configuration with the whole path of its data set, where it has one. Raises as `placed`, for `method.data.path`."""
        method = config.method
        if isinstance(method, TuningMethod):
            data: Part | DatasetSettings = self.placed(method.data, anywhere=anywhere, field=DATA_PATH)
        elif isinstance(method, ScratchMethod) and method.data.path:
            asked = DatasetSettings(path=method.data.path, format=method.data.format)
            path = self.placed(asked, anywhere=anywhere, field=DATA_PATH).path
            data = method.data.model_copy(update={"path": path})
        else:
            return config
        return config.model_copy(update={"method": method.model_copy(update={"data": data})})

    def inspect(
        self,
        settings: DatasetSettings,
        *,
        epochs: int = 1,
        batch: int = 1,
        seconds_per_step: float | None = None,
        progress: Progress = unwatched,
    ) -> DatasetReport:
        """The report on a data set that is `placed`, read afresh. Raises `DatasetError` when nothing in it is usable."""
        dataset = self._keep(settings, read_dataset(settings, progress))
        return describe(dataset, settings, epochs=epochs, batch=batch, seconds_per_step=seconds_per_step)

    def captions(self, settings: DatasetSettings, offset: int, limit: int) -> CaptionPage:
        """A stretch of the pictures with their captions. Raises as `inspect`."""
        return caption_page(self._read(settings), settings, offset, min(limit, PAGE))

    def edit(self, settings: DatasetSettings, name: str, captions: Sequence[str]) -> CaptionEdit:
        """Write the captions of one picture; the answer holds what they were.

        Raises as `edit_captions`, and `InvalidRequest` while a captioner writes to this data set.
        """
        if self.captioning.busy(settings):
            raise InvalidRequest("A captioner is writing to this data set: edit when it has ended, or stop it.")
        with self._lock:
            former = edit_captions(settings, name, captions)
            self._recent.clear()
        return CaptionEdit(name=name, former=former)

    def thumbnail(self, settings: DatasetSettings, name: str) -> bytes:
        """A small JPEG of one picture. Raises `NotFound`, `TrainingError`, and as `inspect`."""
        item = next((item for item in self._read(settings).items if item.name == name), None)
        if item is None:
            raise NotFound(f"There is no usable picture {name[:200]!r} in this data set.", field="name")
        return as_jpeg(item.picture(), THUMBNAIL)

    def add_archive(self, archive: Path, name: str, progress: Progress = unwatched) -> Unpacked:
        """Unpack a ZIP file into `datasets/`; returns its folder there, and what stayed in the ZIP.

        Raises as `unpack`, and `DatasetError` when there is no data set in it; nothing is left then.
        """
        unpacked = unpack(archive, self._paths.datasets, name, progress)
        try:
            read_dataset(DatasetSettings(path=str(unpacked.folder)))
        except DatasetError:
            shutil.rmtree(unpacked.folder, ignore_errors=True)
            raise
        return unpacked

    def caption(
        self,
        settings: DatasetSettings,
        captioner: str,
        *,
        device: DeviceName = "auto",
        replace: bool = False,
        progress: Progress = unwatched,
    ) -> Captioned:
        """Let `captioner` describe every picture without a caption, or with `replace` every picture. Loads torch for some captioners.

        Raises `UnknownName`, what making the captioner raises, and as `caption_dataset`.
        """
        from studio.training.captioning import CAPTIONERS, caption_dataset

        made = CAPTIONERS.get(captioner, field="captioner")(self._paths.captioners, device)
        return caption_dataset(settings, made, replace=replace, progress=progress)

    def _forget(self) -> None:
        with self._lock:
            self._recent.clear()

    def _read(self, settings: DatasetSettings) -> Dataset:
        kept = self._recent.get(settings)
        if kept is not None and time.monotonic() - kept[0] < RECENT_SECONDS:
            return kept[1]
        return self._keep(settings, read_dataset(settings))

    def _keep(self, settings: DatasetSettings, dataset: Dataset) -> Dataset:
        with self._lock:
            self._recent.pop(settings, None)
            while len(self._recent) >= RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[settings] = (time.monotonic(), dataset)
        return dataset
