"""`DiffusersEngine`: paints in this process, with diffusers' U-Net, VAE and text encoders. What the worker process runs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TypeVar, get_args

import torch
from torch import Tensor

from studio.engine.canvas import prepare
from studio.engine.coding import Coding
from studio.engine.decode import Decoder
from studio.engine.eight_bit import Storage
from studio.engine.faces.restore import FaceKeeper, Restore
from studio.engine.failure import Work, explain, is_device_lost
from studio.engine.hardware import AttentionName, CompileName, DeviceName, PrecisionName, choose_hardware
from studio.engine.hypernetwork import acts_in
from studio.engine.insisting import Spare, insist
from studio.engine.keeper import ModelKeeper
from studio.engine.latents import unpack_step
from studio.engine.leaving import Left, unwanted
from studio.engine.loaded import LoadedCheckpoint
from studio.engine.loading_copies import Copies
from studio.engine.painters import Painters, merged_loras
from studio.engine.painting import Painter, Painting
from studio.engine.refiner import check_job
from studio.engine.saving import Saving
from studio.engine.token_merging import has_fine_attention
from studio.errors import EngineError, InvalidRequest, StudioError
from studio.families.tiny_vae import Half
from studio.infotext import encode_png
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Finished, Started, Status
from studio.schema.levers import LeverName
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

WAIT_SECONDS = 0.05
log = logging.getLogger(__name__)
T = TypeVar("T")


class DiffusersEngine:
    """See `Engine`.

    Args:
        device: `auto` takes cuda, mps or cpu, in that order. Raises `SettingsError` for one that is not there.
        attention: a kernel of `engine/attention.py`; see `choose_hardware` for `auto`.
        precision: number format of the weights. Raises `SettingsError` for one that the device cannot compute in.
        compiled: compile the U-Net's blocks, and record them as CUDA graphs; both on CUDA only.
        without: levers of speed that are left out (`schema/levers.py`). Huge pages are up to the process: see `prepare_to_compute`.
        checkpoints: how many may stay loaded, as far as the memory goes.
        copies: where converted copies of checkpoints are kept on disk; None keeps none.
    """

    def __init__(
        self,
        device: DeviceName = "auto",
        attention: AttentionName = "auto",
        precision: PrecisionName = "auto",
        compiled: CompileName = "off",
        without: frozenset[LeverName] = frozenset(),
        *,
        checkpoints: int = 4,
        copies: Copies | None = None,
    ) -> None:
        self._hardware = choose_hardware(device, attention, precision, compiled, without)
        self._device_label = self._hardware.device_label
        self._keeper = ModelKeeper(self._hardware, checkpoints, copies)
        self._faces = FaceKeeper(self._hardware)
        self._ask_batch = self._ask_job = unwanted(CancelToken())  # raise `Left` when it is not wanted any more
        self._begin(Saving(), ())
        self._turn = threading.RLock()  # the thread that paints may decode between two steps
        self._activity = ""
        self._model_name = ""
        self._running = False
        self._broken = ""

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        """See `Engine.run`."""
        yield Started()
        if self._activity:
            yield Status(message=self._activity)
        while not self._turn.acquire(timeout=WAIT_SECONDS):
            if cancel.mode == "interrupt":
                yield Cancelled()
                return
        self._running = True
        self._ask_batch, self._ask_job = unwanted(cancel), unwanted(cancel, "interrupt")
        try:
            yield from self._paint(resolved, cancel, kept)
        except Left:
            yield Cancelled()
        except Exception as error:
            raise self._explained(error, Work.painting(resolved)) from error
        finally:
            self._keeper.rest()
            self._running = False
            self._activity = ""
            self._turn.release()

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """See `Engine.decode`. Between two events of a job only for a checkpoint that is in memory then."""
        kept = unpack_step(latents)
        denoised = kept.denoised
        if not 0 <= index < len(denoised):
            raise InvalidRequest(f"A batch of {len(denoised)} has no picture {index}.", field="index")
        with self._turn:
            try:
                return self._decoded(model, vae, denoised[index], wraps=kept.wraps)
            except Exception as error:
                raise self._explained(error, Work.decoding(model)) from error

    def info(self) -> EngineInfo:
        """See `Engine.info`."""
        hardware = self._hardware
        return EngineInfo(
            state="failed" if self._broken else "busy" if self._running else "starting" if self._activity else "ready",
            message=self._broken or self._activity or hardware.note,
            device=self._device_label,
            dtype=hardware.dtype_label,
            attention=hardware.attention,
            torch=torch.__version__,
            model=None if self._keeper.is_empty else self._model_name,
            memory=0 if self._broken else hardware.memory(),  # a lost device cannot be asked
            pid=os.getpid(),
        )

    def start(self, model: ModelInfo | None = None) -> None:
        """Load `model` in a thread, after the job that runs now. A model that cannot be loaded is reported by the job that needs it."""
        if model is not None:
            threading.Thread(target=self._warm, args=(model,), name="warm-up", daemon=True).start()

    def load(self, model: ModelInfo) -> LoadedCheckpoint:
        """The checkpoint, loaded if need be, for those who want its modules: benchmarks, evaluation (on its `stage`). Raises as `run`."""
        with self._turn:
            loaded = self._keeper.checkpoint(model)
            self._model_name = model.name
            return loaded

    def close(self) -> None:
        """Unload everything."""
        with self._turn:
            self._keeper.drop()
            self._faces.release()

    def _warm(self, model: ModelInfo) -> None:
        with self._turn:
            self._activity = f"Loading {model.name}"
            try:
                if self._keeper.held(model) is None:  # however it is stored
                    self.load(model)
            except Exception as error:
                log.warning("cannot load %s ahead: %s", model.name, error)
            finally:
                self._activity = ""

    @torch.inference_mode()
    def _decoded(self, model: ModelInfo, vae: ModelInfo | None, latents: Tensor, *, wraps: bool) -> bytes:
        """The picture of `latents` [C, h, w] as a PNG."""
        loaded = self._keeper.held(model)
        if loaded is None and self._running:
            raise EngineError(
                f"{model.name} is not in memory while another checkpoint paints: decode this step when the job is done."
            )
        decoder = Decoder(self._keeper.vae(vae, loaded or self._keeper.checkpoint(model)), wraps=wraps)
        return encode_png(decoder.picture(latents.to(self._hardware.device, torch.float32)), "")

    def _begin(self, saving: Saving, job: Sequence[ModelInfo]) -> None:
        """A job of these checkpoints that saves memory in its own way, the autoencoders too."""
        self._coding = Coding(self._keeper, self._hardware, saving, job, self._ask_batch)

    def _paint(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes) -> Iterator[Event]:
        self._keeper.gather()
        loads = any(not self._keeper.has(one, Storage.of(resolved, one)) for one in resolved.checkpoints)
        if resolved.faces is None and loads:
            self._faces.release()  # a checkpoint may need the room
        loaded, restore = yield from self._insist(self._prepare_all, resolved)
        self._activity = ""
        given = resolved.source if resolved.sd_upscale is None else None
        canvas = prepare(given, resolved.mask, (resolved.width, resolved.height)) if given else None
        painters = Painters(resolved, self._keeper, self._coding, self._hardware, self._load_late, self._ask_batch)
        painter = partial(painters.painter, kept=kept, canvas=canvas)
        with contextlib.closing(
            Painting(resolved, cancel, partial(painter, loaded), self._coding, self._hardware, canvas, restore)
        ) as job:
            with contextlib.suppress(Left):  # the job, before a later batch
                yield from self._batches(job, loaded, resolved, cancel, painter)
            yield from job.rest()
            interrupted = cancel.mode == "interrupt" and job.images < len(resolved.seeds)
            if interrupted and not job.images:
                yield Cancelled()
            else:
                yield Finished(images=job.images, seconds=time.monotonic() - job.began, interrupted=interrupted)

    def _batches(
        self,
        job: Painting,
        loaded: LoadedCheckpoint,
        resolved: ResolvedRequest,
        cancel: CancelToken,
        painter: Callable[[LoadedCheckpoint], Painter],
    ) -> Iterator[Event]:
        for batch in range(resolved.batch_count):
            if not self._keeper.holds(loaded):  # another one of the job needed the room
                loaded = yield from self._insist(self._prepare, resolved)
                self._coding.saving.heed(loaded)
                self._activity = ""
                job.begin_anew(partial(painter, loaded))
            yield from job.batch(batch)
            if cancel.mode == "interrupt":
                break
            cancel.clear_skip()

    def _insist(
        self, prepare: Callable[[ResolvedRequest], Generator[Event, None, T]], resolved: ResolvedRequest
    ) -> Generator[Event, None, T]:
        """What `prepare` gives, once more with less in memory each time that it runs out."""
        spare = Spare(resolved, self._keeper, self._faces, self._hardware)
        return (yield from insist(partial(prepare, resolved), spare.less, self._hardware))

    def _prepare_all(
        self, resolved: ResolvedRequest
    ) -> Generator[Event, None, tuple[LoadedCheckpoint, Restore | None]]:
        """Begin a job: what cannot be loaded is told before anything is painted."""
        loaded = yield from self._prepare(resolved)
        self._begin(Saving.of(loaded), resolved.checkpoints)
        restore = self._faces.restore(resolved.faces) if resolved.faces else None
        for half in get_args(Half):
            self._coding.vae(half, resolved, loaded)
            self._ask_job()
        for model in resolved.upscaler_models:
            self._keeper.upscaler(model)
        return loaded, restore

    def _prepare(self, resolved: ResolvedRequest) -> Generator[Event, None, LoadedCheckpoint]:
        """Load what the job needs, as far as there is room, and merge its LoRAs; a skipped batch leaves that to do for the next one."""
        loaded = yield from self._load(resolved.model, resolved)
        self._model_name = resolved.model.name
        loras = merged_loras(resolved)
        if loaded.text.wants(resolved.text_encoders):
            yield self._status("Changing the text encoder")
        elif loras != loaded.loras.active:
            yield self._status("Applying LoRAs" if loras else "Removing LoRAs")
        loaded.read_with(resolved.text_encoders, loras)
        self._ask_job()
        networks = loaded.hypernetworks.load(resolved.hypernetworks)
        for use, network in zip(resolved.hypernetworks, networks, strict=True):
            if not acts_in(loaded.model.unet, network):
                yield self._status(f"{use.name} fits no layer of {resolved.model.name}: it changes nothing")
        if _merges(resolved) and not has_fine_attention(loaded.model.unet):
            yield self._status(f"{resolved.model.name} has no attention at full resolution: no tokens are merged")
        for other in resolved.checkpoints[1:]:
            if self._keeper.has_room(other, resolved.checkpoints, Storage.of(resolved, other)):
                yield from self._load(other, resolved)
        check_job(resolved, self._keeper.held)
        refiner = resolved.refiner.model if resolved.refiner else None
        if refiner and loras and refiner.family != resolved.model.family:
            yield self._status(f"The LoRAs do not fit {refiner.name}, which goes on without them")
        return loaded

    def _load(self, model: ModelInfo, job: ResolvedRequest) -> Generator[Event, None, LoadedCheckpoint]:
        storage = Storage.of(job, model)
        if not self._keeper.has(model, storage):
            yield self._status(f"Loading {model.name}")
        loaded = self._keeper.checkpoint(model, job.checkpoints, storage)
        for note in loaded.told():
            yield self._status(note)
        self._ask_job()  # not meanwhile: the next job almost always wants the same checkpoint, so it is loaded to its end
        return loaded

    def _load_late(self, model: ModelInfo, job: ResolvedRequest) -> LoadedCheckpoint:
        """A checkpoint that a job comes to while it paints, loaded if need be; its others stay if there is room."""
        storage = Storage.of(job, model)
        if not self._keeper.has(model, storage):
            self._activity = f"Loading {model.name}"
        loaded = self._keeper.checkpoint(model, job.checkpoints, storage)
        self._activity = ""
        self._ask_batch()
        return loaded

    def _status(self, message: str) -> Status:
        self._activity = message
        return Status(message=message)

    def _explained(self, error: Exception, work: Work) -> StudioError:
        """`error` for the user; its traceback goes to the log, and what it holds of the device's memory is given back."""
        if isinstance(error, StudioError):
            return error
        log.error("%s failed", work.doing.lower(), exc_info=error)
        explained = explain(error, work, self._device_label)
        if is_device_lost(error):
            self._broken = explained.message
        else:
            traceback.clear_frames(error.__traceback__)
            self._hardware.free()
        return explained


def _merges(resolved: ResolvedRequest) -> bool:
    return resolved.token_merging_ratio > 0 or (resolved.hires is not None and resolved.hires.token_merging_ratio > 0)
