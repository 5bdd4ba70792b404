"""`Studio`: the composition root. Builds settings, library, queue and engine once, and is all that the faces know.

The page, the REST API and the command line call the methods here; none of them sees a store, a worker or a model file.
No heavy library is imported at module top: the server process never loads torch.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import __version__
from studio.errors import InvalidRequest, NotAllowed, NotFound, StudioError
from studio.lineage import origin_request
from studio.localise import in_local_words
from studio.paths import Paths
from studio.resolve import fixed, resolve
from studio.schema.engine import CancelToken, Engine
from studio.schema.events import Event, Finished, ImageReady
from studio.schema.jobs import JobRecord
from studio.schema.models import ModelInfo
from studio.schema.parts import MAX_SEED, BranchPoint
from studio.schema.request import GenerationRequest, RunOptions
from studio.schema.resolved import ResolvedRequest
from studio.schema.runs import RunRecord
from studio.schema.training import TrainingConfig
from studio.settings import Settings, store_settings, updated
from studio.sources import hold_pictures

if TYPE_CHECKING:
    from studio.datasets import Datasets
    from studio.infotext import ParsedInfotext, PictureInfo
    from studio.inspection import Inspection
    from studio.jobs import JobQueue
    from studio.library import Library
    from studio.library.embeddings import EmbeddingWords
    from studio.reproduce import Original, Reproduction
    from studio.runs import RunManager


KEPT_ORIGINALS = 16
"""Pictures under the reproduce check that are held in memory; the oldest go first."""


class Studio:
    """One running installation. Thread-safe: the page, REST and the command line share it."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        library: Library,
        queue: JobQueue | None,
        engine: Engine,
        *,
        exposed: bool = False,
    ) -> None:
        self.paths = paths
        self.library = library
        self.engine = engine
        self.exposed = exposed
        self.version = __version__
        self.notes: list[str] = []
        self._queue = queue
        self._training: RunManager | None = None
        self._settings = settings
        self._lock = threading.Lock()
        self._originals: dict[int, Original] = {}

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self._settings

    @property
    def queue(self) -> JobQueue:
        """The job queue. A studio built for one command-line picture has none."""
        if self._queue is None:
            raise StudioError("This studio was built without a queue.")
        return self._queue

    @cached_property
    def datasets(self) -> Datasets:
        """Pictures and captions to train on."""
        from studio.datasets import Datasets

        return Datasets(self.paths)

    @property
    def training(self) -> RunManager:
        """The training runs. A studio built for one command-line picture has none."""
        if self._training is None:
            raise StudioError("This studio was built without training runs.")
        return self._training

    def attach(self, queue: JobQueue, training: RunManager) -> None:
        """Give the studio what a server has."""
        self._queue, self._training = queue, training

    def start(self) -> None:
        """Begin hashing models, warming the worker up and taking jobs; returns at once."""
        self.library.start_hashing()
        if self._queue is not None:
            self._queue.start()
        if self._training is not None:
            self._training.start(self.queue.events.nudge)
        self.engine.start(self._selected())

    def close(self) -> None:
        """Stop taking jobs, end the worker, release the data folder. Training runs go on: they are processes of their own."""
        if self._queue is not None:
            self._queue.close()
        if self._training is not None:
            self._training.close()
        self.engine.close()
        self.library.close()

    # -- asking for pictures ------------------------------------------------------------------------------------------

    def default_request(self, model: ModelInfo | None = None, branch: BranchPoint | None = None) -> GenerationRequest:
        """What a fresh form shows: the settings' defaults at the native size of `model` (or the selected checkpoint).

        For a branch it is the request of its origin, with the branch. Raises as `studio.lineage.origin_request` then.
        """
        if branch is not None:
            origin = origin_request(branch, self.library.lora_hashes(), self.library.embedding_hashes())
            return origin.model_copy(update={"branch": branch})
        settings, model = self.settings, model or self._selected()
        side = model.native_size if model else 512
        return GenerationRequest(
            sampler=settings.default_sampler,
            schedule=settings.default_schedule,
            steps=settings.default_steps,
            cfg_scale=settings.default_cfg_scale,
            width=side,
            height=side,
            model=model.name if model else None,
            vae=settings.sd_vae,
            clip_skip=settings.CLIP_stop_at_last_layers,
            emphasis=settings.emphasis,
            rng=settings.randn_source,
            code_former_weight=settings.code_former_weight,
        )

    def resolve(self, request: GenerationRequest, options: RunOptions | None = None) -> ResolvedRequest:
        """See `studio.resolve.resolve`; seeds of -1 are drawn here, and what `options` leave open about files is as the settings say."""
        if options and options.save:
            hold_pictures(request, self.library.init_images)
        return resolve(
            request,
            self.library,
            lambda: secrets.randbelow(MAX_SEED + 1),
            selected_checkpoint=self.settings.sd_model_checkpoint,
            options=options and self._filed(options),
        )

    def submit(self, request: GenerationRequest, options: RunOptions | None = None, source: str = "ui") -> JobRecord:
        """Check `request` now, then put it into the queue with all names and seeds fixed.

        Raises what `resolve` raises, and `QueueFull`.
        """
        resolved = self.resolve(request, options or RunOptions(preview_every=self.settings.preview_every))
        job = self.queue.submit(fixed(request, resolved), resolved.options, source)
        return job.model_copy(update={"notes": resolved.notes})

    def paint(self, resolved: ResolvedRequest, cancel: CancelToken) -> Generator[Event, None, str | None]:
        """Run what `resolve` made of a request without the queue, save its pictures and their grid, and return its path: the `generate` command."""
        from studio.jobs.cells import painted
        from studio.jobs.saving import read_file, save_grid, save_picture

        def data(picture: ImageReady) -> bytes:
            return picture.png or read_file(Path(picture.path or ""), f"picture {picture.index}")

        options, settings, started = resolved.options, self.settings, time.time()
        pictures: list[ImageReady] = []
        grid = None
        for event in painted(self.engine, resolved, cancel):
            if isinstance(event, ImageReady):
                event = save_picture(event, resolved, started, self.paths, settings) if options.save else event
                pictures.append(event)
            elif isinstance(event, Finished):
                grid = save_grid(pictures, data, resolved, started, self.paths, settings)
            yield event
        return grid

    def reproduce(self, data: bytes, cancel: CancelToken) -> Reproduction | None:
        """Paint the picture in the file `data` again, without the queue, and compare; None when it was cancelled.

        Raises `DamagedFile`, `InvalidRequest` (no parameters in it) and what painting raises.
        """
        from studio.reproduce import compare

        original = self._original(data)
        events = self.engine.run(self.resolve(original.request, RunOptions(preview_every=0, save=False)), cancel)
        ready = [event for event in events if isinstance(event, ImageReady)]
        return compare(original, ready[0].png, ready[0].infotext) if ready else None

    def start_reproduction(self, data: bytes) -> JobRecord:
        """The same check by way of the queue; the picture is not saved. Raises as `reproduce`, and `QueueFull`."""
        original = self._original(data)
        job = self.submit(original.request, RunOptions(save=False), source="reproduce")
        with self._lock:
            self._originals[job.id] = original
            while len(self._originals) > KEPT_ORIGINALS:
                del self._originals[min(self._originals)]
        return job

    def reproduction(self, job_id: int) -> Reproduction | None:
        """The outcome of a check by way of the queue; None while there is no picture yet.

        Raises `NotFound` for a job that is no check, or one so old that it was forgotten.
        """
        from studio.reproduce import compare

        job, original = self.queue.job(job_id), self._originals.get(job_id)
        if original is None:
            raise NotFound(f"Job {job_id} is no reproduce check, or one from before the server started.")
        if not job.images:
            return None
        return compare(original, self.queue.image_bytes(job.images[0].id), job.images[0].infotext)

    # -- training -----------------------------------------------------------------------------------------------------

    def start_training(self, config: TrainingConfig, *, anywhere: bool) -> RunRecord:
        """Put a new training run into the queue.

        A data set's path is relative to the data folder; unless `anywhere`, it must lie in there. Raises `NotAllowed`,
        `InvalidRequest`, and as `RunManager.create`.
        """
        return self.training.create(self.datasets.placed_training(config, anywhere=anywhere))

    # -- reading ------------------------------------------------------------------------------------------------------

    def count_tokens(self, text: str) -> tuple[int, int]:
        """(tokens used, end of the last started 75-token chunk), the counter `12/75` beside a prompt.

        A prompt in the middle of being typed may have a weight that is no number yet: its brackets are then counted as text.
        """
        from studio.prompt import chunk_prompt, count_longest
        from studio.prompt.tokenizer import shipped_tokenizer

        names = self.embedding_words().names
        try:
            return count_longest(text, embeddings=names)
        except InvalidRequest:
            used = len(shipped_tokenizer().encode(text))
            return used, 75 * len(chunk_prompt([(text, 1.0)], shipped_tokenizer(), embeddings=names))

    def embedding_words(self) -> EmbeddingWords:
        """The embeddings that a prompt may name with the selected checkpoint; none where there is no checkpoint."""
        from studio.library.embeddings import EmbeddingWords, embedding_words

        model = self._selected()
        return embedding_words(self.library.embeddings(), model) if model else EmbeddingWords({}, {})

    def inspect(self, request: GenerationRequest) -> Inspection:
        """What the prompts of `request` come to; see `studio.inspection`."""
        from studio.inspection import inspect_request

        return inspect_request(request, self.library, selected_checkpoint=self.settings.sd_model_checkpoint)

    def read_picture(self, data: bytes) -> PictureInfo:
        """What is written inside a picture file. Raises `DamagedFile`."""
        from studio.infotext import read_picture

        info = read_picture(data, self.library.lora_hashes(), self.library.embedding_hashes())
        return replace(info, request=in_local_words(info.request, self.library))

    def read_infotext(self, text: str) -> ParsedInfotext:
        """A1111 generation text as request fields, with notes about what was not understood."""
        from studio.infotext import parse_infotext

        parsed = parse_infotext(text, self.library.lora_hashes(), self.library.embedding_hashes())
        return replace(parsed, request=in_local_words(parsed.request, self.library))

    # -- choosing and remembering -------------------------------------------------------------------------------------

    def select_checkpoint(self, name: str) -> ModelInfo:
        """Make `name` the selected checkpoint, also after a restart, and begin loading it. Raises `UnknownModel`."""
        model = self.library.checkpoint(name)
        self.update_settings({"sd_model_checkpoint": model.name})
        if not model.problem:
            self.engine.start(model)
        return model

    def update_settings(self, changes: Mapping[str, Any], *, over_http: bool = True) -> Settings:
        """Validate, store and use `changes`.

        Raises `NotAllowed` for settings that may not change over HTTP, `SettingsError` for values that are not
        possible, `StorageError` when the file cannot be written; then nothing has changed.
        """
        known = {key: value for key, value in changes.items() if key in Settings.model_fields}
        for key in known:
            extra = Settings.model_fields[key].json_schema_extra
            if over_http and not (isinstance(extra, dict) and extra.get("http")):
                raise NotAllowed(
                    f"Setting {key} can only be changed on the command line, in the environment or in the settings file.",
                    field=key,
                )
        with self._lock:
            fresh = updated(self._settings, known)
            store_settings(self.paths.settings_file, {key: getattr(fresh, key) for key in known})
            self._settings = fresh
        return fresh

    def load_form(self, browser: str) -> dict[str, Any] | None:
        """The form as this browser left it."""
        return self.queue.store.load_form(browser)

    def save_form(self, browser: str, form: dict[str, Any]) -> None:
        """Remember the form of one browser."""
        self.queue.store.save_form(browser, form)

    def _original(self, data: bytes) -> Original:
        from studio.reproduce import read_original

        return read_original(self.read_picture(data), data, self.library)

    def _filed(self, options: RunOptions) -> RunOptions:
        """`options` with what they leave open about files as the settings say."""
        settings = self.settings
        defaults = {
            "file_format": settings.samples_format,
            "quality": settings.jpeg_quality,
            "text_file": settings.save_txt,
            "user": settings.auth.partition(":")[0] if settings.add_user_name_to_info else "",
        }
        return options.model_copy(
            update={name: value for name, value in defaults.items() if getattr(options, name) is None}
        )

    def _selected(self) -> ModelInfo | None:
        """The checkpoint a request without a model would use; None when there is none at all."""
        try:
            return self.library.checkpoint(self.settings.sd_model_checkpoint or None)
        except StudioError:
            return next((model for model in self.library.checkpoints() if not model.problem), None)
