"""`DiffusersEngine`: paints in this process, with diffusers' U-Net, VAE and text encoders. What the worker process runs."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from studio import __version__
from studio.engine.branching import BranchPass
from studio.engine.decode import Decoder
from studio.engine.failure import explain, is_device_lost
from studio.engine.hardware import AttentionName, DeviceName, choose_hardware
from studio.engine.keeper import LoadedCheckpoint, ModelKeeper
from studio.engine.latents import pack_step, start_point, unpack_step
from studio.engine.loading import LatentFacts, LoadedVae
from studio.engine.lora import LoraWeights
from studio.engine.passes import TextToImage
from studio.engine.preview import Previewer
from studio.engine.refiner import RefinerPass, check_latents
from studio.errors import EngineError, InvalidRequest, StudioError
from studio.infotext import encode_png, write_infotext
from studio.samplers.types import Step
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

WAIT_SECONDS = 0.05
log = logging.getLogger(__name__)


@dataclass
class _Job:
    """One request being painted: its parts, made once, and how far it is."""

    resolved: ResolvedRequest
    cancel: CancelToken
    text_to_image: TextToImage | BranchPass
    previewer: Previewer
    vae: Callable[[LoadedCheckpoint], LoadedVae]
    backend: str
    images: int = 0
    began: float = field(default_factory=time.monotonic)

    def left(self) -> bool:
        """Whether the batch being painted is not wanted any more."""
        return self.cancel.mode != "none"

    def seeds(self, batch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Seeds and variation seeds of one batch; the latter are none without a variation."""
        part = slice(batch * self.resolved.batch_size, (batch + 1) * self.resolved.batch_size)
        variation = self.resolved.variation
        return self.resolved.seeds[part], variation.seeds[part] if variation else ()


class DiffusersEngine:
    """See `Engine`.

    Args:
        device: `auto` takes cuda, mps or cpu, in that order. Raises `SettingsError` for one that is not there.
        attention: `auto` and `sdpa` use PyTorch's own kernels.
    """

    def __init__(self, device: DeviceName = "auto", attention: AttentionName = "auto") -> None:
        self._hardware = choose_hardware(device, attention)
        self._device_label = self._hardware.device_label
        self._keeper = ModelKeeper(self._hardware)
        self._turn = threading.RLock()  # the thread that paints may decode between two steps
        self._activity = ""
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
        try:
            yield from self._paint(resolved, cancel, kept)
        except Exception as error:
            raise self._explained(error, resolved) from error
        finally:
            self._running = False
            self._activity = ""
            self._turn.release()

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """See `Engine.decode`. Between two events of a job only for a checkpoint that is in memory then."""
        kept = unpack_step(latents)
        denoised = kept.denoised
        if not 0 <= index < len(denoised):
            raise InvalidRequest(f"A batch of {len(denoised)} has no picture {index}.", field="index")
        with self._turn, torch.inference_mode():
            loaded = self._keeper.held(model)
            if loaded is None and self._running:
                raise EngineError(
                    f"{model.name} is not in memory while another checkpoint paints: decode this step when the job is done."
                )
            decoder = Decoder(self._keeper.vae(vae, loaded or self._keeper.checkpoint(model)), tiling=kept.tiling)
            return encode_png(decoder.picture(denoised[index].to(self._hardware.device, torch.float32)), "")

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
            model=self._keeper.model_name,
            memory=0 if self._broken else hardware.memory(),  # a lost device cannot be asked
            pid=os.getpid(),
        )

    def start(self, model: ModelInfo | None = None) -> None:
        """Load `model` in a thread, after the job that runs now. A model that cannot be loaded is reported by the job that needs it."""
        if model is not None:
            threading.Thread(target=self._warm, args=(model,), name="warm-up", daemon=True).start()

    def load(self, model: ModelInfo) -> LoadedCheckpoint:
        """The checkpoint, loaded if need be, for those who want its modules: benchmarks, evaluation. Raises as `run`."""
        with self._turn:
            return self._keeper.checkpoint(model)

    def close(self) -> None:
        """Unload everything."""
        with self._turn:
            self._keeper.drop()

    def _warm(self, model: ModelInfo) -> None:
        with self._turn:
            self._activity = f"Loading {model.name}"
            try:
                self._keeper.checkpoint(model)
            except Exception as error:
                log.warning("cannot load %s ahead: %s", model.name, error)
                self._keeper.drop()
            finally:
                self._activity = ""

    def _paint(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes) -> Iterator[Event]:
        loaded = yield from self._prepare(resolved)
        preview = self._keeper.vae(resolved.vae, loaded).latent.preview
        self._activity = ""
        job = _Job(
            resolved,
            cancel,
            self._painter(loaded, resolved, kept),
            Previewer(preview.factors, preview.bias, (resolved.width, resolved.height)),
            partial(self._keeper.vae, resolved.vae),
            self._hardware.backend,
        )
        for batch in range(resolved.batch_count):
            if not self._keeper.holds(loaded):  # its refiner needed the room
                loaded = yield from self._prepare(resolved)
                self._activity = ""
                job.text_to_image = self._pass(loaded, resolved)
            yield from _paint_batch(job, batch)
            if cancel.mode == "interrupt":
                break
            cancel.clear_skip()
        interrupted = cancel.mode == "interrupt" and job.images < len(resolved.seeds)
        if interrupted and not job.images:
            yield Cancelled()
        else:
            yield Finished(images=job.images, seconds=time.monotonic() - job.began, interrupted=interrupted)

    def _prepare(self, resolved: ResolvedRequest) -> Generator[Event, None, LoadedCheckpoint]:
        """Load what the job needs, as far as there is room, and merge its LoRAs."""
        refiner = resolved.refiner.model if resolved.refiner else None
        loaded = yield from self._load(resolved.model, refiner)
        loras = _loras(resolved)
        if loras != loaded.loras.active:
            yield self._status("Applying LoRAs" if loras else "Removing LoRAs")
        loaded.loras.apply(loras)
        if refiner and self._keeper.has_room(refiner):
            second = yield from self._load(refiner, resolved.model)
            check_latents(loaded.model.latent, second.model)
        if refiner and loras and refiner.family != resolved.model.family:
            yield self._status(f"The LoRAs do not fit {refiner.name}, which goes on without them")
        return loaded

    def _load(self, model: ModelInfo, beside: ModelInfo | None) -> Generator[Event, None, LoadedCheckpoint]:
        fresh = not self._keeper.has(model)
        if fresh:
            yield self._status(f"Loading {model.name}")
        loaded = self._keeper.checkpoint(model, beside)
        for note in loaded.model.notes if fresh else ():
            yield self._status(note)
        return loaded

    def _pass(self, loaded: LoadedCheckpoint, resolved: ResolvedRequest) -> TextToImage:
        """The pass of a job, with its refiner."""
        if resolved.refiner is None:
            return TextToImage(loaded, resolved, self._hardware)
        open_pass = partial(self._open_refiner, resolved, resolved.refiner.model, loaded.model.latent)
        return TextToImage(loaded, resolved, self._hardware, RefinerPass(resolved.refiner, open_pass))

    def _open_refiner(
        self, resolved: ResolvedRequest, model: ModelInfo, latent: LatentFacts
    ) -> tuple[LoadedCheckpoint, TextToImage]:
        """The refiner's checkpoint and pass. LoRAs and embeddings go into it where they fit, as in AUTOMATIC1111."""
        if not self._keeper.has(model):
            self._activity = f"Loading {model.name}"
        loaded = self._keeper.checkpoint(model, beside=resolved.model)
        self._activity = ""
        check_latents(latent, loaded.model)
        same = model.family == resolved.model.family
        loaded.loras.apply(_loras(resolved) if same else ())
        embeddings = resolved.embeddings if same or model.family == "sdxl_refiner" else ()
        finishing = resolved.model_copy(
            update={"model": model, "prediction_type": "Automatic", "embeddings": embeddings}
        )
        return loaded, TextToImage(loaded, finishing, self._hardware)

    def _painter(self, loaded: LoadedCheckpoint, resolved: ResolvedRequest, kept: bytes) -> TextToImage | BranchPass:
        """What paints: one pass, or a branch that makes its passes when their turns come."""
        if resolved.branch is None:
            return self._pass(loaded, resolved)

        def make(part: ResolvedRequest) -> TextToImage:
            current = loaded
            if not self._keeper.holds(loaded):  # a refiner needed the room
                current = self._keeper.checkpoint(part.model, part.refiner.model if part.refiner else None)
            current.loras.apply(_loras(part))
            return self._pass(current, part)

        latent, device = loaded.model.latent, self._hardware.device
        shape = (1, latent.channels, resolved.height // latent.scale, resolved.width // latent.scale)
        start = start_point(kept, resolved.branch.step, shape, self._hardware.backend, device)
        return BranchPass(resolved, make, start)

    def _status(self, message: str) -> Status:
        self._activity = message
        return Status(message=message)

    def _explained(self, error: Exception, resolved: ResolvedRequest) -> StudioError:
        """`error` for the user; its traceback goes to the log, and what it holds of the device's memory is given back."""
        if isinstance(error, StudioError):
            return error
        log.error("painting failed", exc_info=error)
        explained = explain(error, resolved, self._device_label)
        if is_device_lost(error):
            self._broken = explained.message
        else:
            traceback.clear_frames(error.__traceback__)
            self._hardware.free()
        return explained


def _loras(resolved: ResolvedRequest) -> tuple[LoraWeights, ...]:
    return tuple(LoraWeights.of(use) for use in resolved.loras)


def _paint_batch(job: _Job, batch: int) -> Iterator[Event]:
    """Denoise and decode one batch; returns early when the job is skipped or interrupted."""
    if job.left():
        return
    last: Step | None = None
    painting, named = job.text_to_image, job.resolved.model.path
    for step in painting.steps(*job.seeds(batch)):
        painter = painting.painter.model.info
        if painter.path != named:
            named = painter.path
            yield Status(
                message=f"{'Painting' if named == job.resolved.model.path else 'Refining'} with {painter.name}"
            )
        yield _progress(job, batch, step)
        if job.left():
            return
        last = step
    assert last is not None, "a plan has at least one step"
    yield Status(message="Decoding")
    decoder = Decoder(job.vae(painting.painter), tiling=job.resolved.tiling)
    for offset, latents in enumerate(last.x):
        if job.left():
            return
        yield _finished_picture(job, decoder, batch * job.resolved.batch_size + offset, latents)


def _progress(job: _Job, batch: int, step: Step) -> Progress:
    every = job.resolved.options.preview_every
    wanted = every > 0 and (step.index + 1) % every == 0
    resolved, painter = job.resolved, job.text_to_image.painter.model.info.path
    kept = pack_step(step, job.backend, painter, tiling=resolved.tiling) if resolved.options.keep_latents else b""
    return Progress(
        batch=batch,
        batches=job.resolved.batch_count,
        step=step.index + 1,
        total=max(job.text_to_image.total, step.index + 1),
        sigma=step.sigma_next,
        previews=job.previewer.draw(step.denoised) if wanted else (),
        latents=kept,
        seconds=time.monotonic() - job.began,
    )


@torch.inference_mode()
def _finished_picture(job: _Job, decoder: Decoder, index: int, latents: Tensor) -> ImageReady:
    picture = decoder.picture(latents)
    infotext = write_infotext(job.resolved, index, __version__, job.backend)
    job.images += 1
    return ImageReady(
        index=index,
        seed=job.resolved.seeds[index],
        width=picture.width,
        height=picture.height,
        infotext=infotext,
        png=encode_png(picture, infotext),
    )
