"""One job being painted: batch after batch from seeds to PNGs, and once more with less memory where it ran out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from studio import __version__
from studio.engine.branching import BranchPass
from studio.engine.canvas import Canvas
from studio.engine.coding import Coding
from studio.engine.decode import Decoder
from studio.engine.enlarging import Enlarging, Teller
from studio.engine.faces.restore import Restore
from studio.engine.finishing import Finishing
from studio.engine.hardware import Hardware
from studio.engine.hires import TwoPasses
from studio.engine.insisting import insist
from studio.engine.latents import pack_step
from studio.engine.leaving import Left, between
from studio.engine.loading import LatentFacts, LoadedVae
from studio.engine.passes import DenoisingPass
from studio.engine.preview import Previewer
from studio.engine.saving import Saving
from studio.engine.sd_upscale import TiledPasses
from studio.engine.transfer import bring, lag
from studio.engine.upscale import final_picture
from studio.infotext import encode_png, write_infotext
from studio.samplers.types import Step
from studio.schema.engine import CancelToken
from studio.schema.events import Event, ImageReady, Progress, Status
from studio.schema.resolved import ResolvedRequest

ALONE = "Too little memory: once more, without decoding beside it"
UNSHARED = "Too little memory: once more, without the other checkpoints in memory"
IN_FLOAT32 = "The VAE gave no numbers: once more, in float32"
Painter = DenoisingPass | BranchPass | TwoPasses | TiledPasses


class Painting:
    """One request being painted: its parts, made once, and how far it is.

    Args:
        resolved: what to paint.
        cancel: asked between two steps.
        begin: makes the pass, which may run out of memory as well. It and `coding` raise `Left` when the batch is not wanted any more.
        coding: the job's autoencoders, and how memory is saved.
        hardware: where.
        canvas: what the pictures begin with, and go into; None where they begin with noise.
        restore: what restores the faces of a finished picture before it goes into the canvas; None leaves them.
    """

    def __init__(
        self,
        resolved: ResolvedRequest,
        cancel: CancelToken,
        begin: Callable[[], Painter],
        coding: Coding,
        hardware: Hardware,
        canvas: Canvas | None = None,
        restore: Restore | None = None,
    ) -> None:
        self.images = 0
        """Finished pictures."""
        self.began = time.monotonic()
        self._resolved = resolved
        self._cancel = cancel
        self._begin = begin
        self._made: Painter | None = None
        self._coding = coding
        self._teller = Teller()
        self._hardware = hardware
        self._saving = coding.saving
        self._canvas = canvas
        self._restore = restore
        self._finishing = Finishing(hardware)
        self._decoded: set[int] = set()
        self._files: deque[Future[ImageReady]] = deque()
        self._writer = ThreadPoolExecutor(1, "png")

    def batch(self, number: int) -> Iterator[Event]:
        """Paint batch `number`, from 0; ends early when the job is skipped or interrupted. Its pictures may come during the next one, or with `rest`.

        Raises what goes wrong; when memory runs out, after the ways to save some are used up. Pictures of a first attempt stay, and those of
        the batches before come first.
        """
        try:
            yield from self._insist(partial(self._attempt, number))
        except Left:
            return
        except Exception:
            yield from self.rest()
            raise

    def begin_anew(self, begin: Callable[[], Painter]) -> None:
        """Have another pass made for the next batch."""
        self._begin, self._made = begin, None

    @property
    def painter(self) -> Painter:
        """The pass of the batch that is painted, or was last."""
        assert self._made is not None, "it is made before the first step"
        return self._made

    def rest(self) -> Iterator[Event]:
        """The pictures that are still being decoded, or whose files are still being made. Raises as `batch`."""
        try:
            yield from self._insist(self._late)
        except Exception:
            yield from self._written()
            raise
        yield from self._written()

    def close(self) -> None:
        """Wait for the picture being decoded, as its checkpoint may be put away next, and for nothing else; the writer ends with its last file."""
        self._finishing.close()
        self._writer.shutdown(wait=False)

    def _insist(self, attempt: Callable[[], Generator[Event, None, None]]) -> Iterator[Event]:
        """What `attempt` does, once more with less memory each time that it runs out."""
        yield from insist(attempt, self._less, self._hardware)

    def _less(self) -> str:
        """Need less memory from now on: first what changes no picture. What is done, for the user; nothing when there is no more to do."""
        if self._finishing.stop():
            return ALONE
        return UNSHARED if self._coding.spare() else self._saving.more(self._hardware.device)

    def _attempt(self, number: int) -> Generator[Event, None, None]:
        if self._left():
            return
        if self._made is None:
            self._made = self._begin()
        last = yield from self._denoise(number)
        if last is None or self._left():
            return
        if isinstance(self.painter, TiledPasses):
            assert self.painter.picture is not None, "all of its steps are done"
            picture = self.painter.picture
            if self._restore is not None:
                yield Status(message="Restoring faces")
            self._write(number, self._restored(picture))
            yield from self._ready()
            return
        yield Status(message="Decoding" if self._restore is None else "Decoding and restoring faces")
        yield from self._insist(self._late)
        first, settled = number * self._resolved.pictures_at_once, self.painter.settled(last.x)
        if self._left():
            return
        if self._goes_on_beside(number):
            self._finishing.take(first, settled, self._apart())
            return
        vae = self._vae()
        for index, latents in enumerate(settled, first):
            if self._left():
                return
            yield from self._finish(index, latents, vae)
            yield from self._ready()

    def _goes_on_beside(self, number: int) -> bool:
        """Whether the pictures of a batch are decoded while the next one is denoised: with plain passes of one checkpoint, which leave the VAE
        alone, while no memory needs to be saved. Tiles are decoded by then, and a branch has no next batch."""
        resolved, vae = self._resolved, self._vae()
        return (
            not vae.stage.is_outside(vae.module)
            and not (resolved.refiner or resolved.hires or self._restore)
            and number + 1 < resolved.batch_count
            and self._saving == Saving()
            and self._finishing.has_room(resolved.width, resolved.height, resolved.batch_size)
        )

    def _apart(self) -> Callable[[Tensor], Image.Image]:
        """What makes a picture of latents without this object, whose thread is another."""
        decoder, canvas = Decoder(self._vae(), wraps=self._resolved.tiling, beside=True), self._canvas

        def decode(latents: Tensor) -> Image.Image:
            picture = decoder.picture(latents)
            return picture if canvas is None else canvas.finished(picture)

        return decode

    def _late(self) -> Generator[Event, None, None]:
        """The pictures that were to be decoded beside the batch, waited for. What was left undone is decoded again, with nothing beside it.

        Their batch is complete: they are decoded to the end, whatever becomes of the job.
        """
        while (given := self._finishing.first()) is not None:
            picture = given.picture()
            if picture is not None:
                self._write(given.index, picture)
            else:
                if self._finishing.stop():
                    self._hardware.free()
                    yield Status(message=ALONE if self._finishing.ran_out else IN_FLOAT32)
                yield from self._finish(given.index, given.latents, replace(self._vae(), ask=None))
            self._finishing.drop()
            yield from self._ready()

    def _denoise(self, number: int) -> Generator[Event, None, Step | None]:
        """All steps of a batch; gives the last one back, None when the job was left."""
        last: Step | None = None
        named, shown = self._resolved.model.path, deque[Callable[[], Progress]]()
        hires = self._resolved.hires
        begin = {self._resolved.model.path, *([hires.model.path] if hires else [])}
        for step in self.painter.steps(*self._seeds(number)):
            if isinstance(step, Enlarging):
                yield from self._teller.words(step)
                if self._left():
                    return None
                continue
            model = self.painter.painter.model
            info, latent = model.info, model.latent
            del model  # what the next pass needs room for
            if info.path != named:
                named = info.path
                yield Status(message=f"{'Painting' if named in begin else 'Refining'} with {info.name}")
                for note in self.painter.painter.told():
                    yield Status(message=note)
            yield from self._ready()
            shown.append(partial(self._progress, number, bring(step), named, latent))
            if len(shown) > lag(self._hardware.device):
                yield shown.popleft()()
            if self._left():
                return None
            last = step
        for progress in shown:
            yield progress()
        assert last is not None, "a plan has at least one step"
        return last

    def _vae(self) -> LoadedVae:
        """What decodes the pictures of the checkpoint that painted last."""
        return self._coding.final(self._resolved, self.painter.painter)

    def _left(self) -> bool:
        """Whether the batch being painted is not wanted any more."""
        return self._cancel.mode != "none"

    def _seeds(self, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Seeds and variation seeds of one batch; the latter are none without a variation."""
        part = slice(number * self._resolved.pictures_at_once, (number + 1) * self._resolved.pictures_at_once)
        variation = self._resolved.variation
        return self._resolved.seeds[part], variation.seeds[part] if variation else ()

    def _progress(self, number: int, brought: Callable[[], Step], painter: str, latent: LatentFacts) -> Progress:
        """What is told of a step; `painter` is the path of the checkpoint that painted it, `latent` what its latents mean."""
        step, options = brought(), self._resolved.options
        wanted = options.preview_every > 0 and (step.index + 1) % options.preview_every == 0
        previewer = Previewer(latent.preview.factors, latent.preview.bias, latent.scale)
        return Progress(
            batch=number,
            batches=self._resolved.batch_count,
            step=step.index + 1,
            total=max(self.painter.total, step.index + 1),
            sigma=step.sigma_next,
            previews=self._drawn(step, previewer) if wanted else (),
            latents=self._kept(step, painter) if options.keep_latents else b"",
            seconds=time.monotonic() - self.began,
        )

    def _drawn(self, step: Step, previewer: Previewer) -> tuple[bytes, ...]:
        if isinstance(self.painter, TiledPasses):
            return (self.painter.preview(step.index, previewer.pictures(step.denoised)),)
        return previewer.draw(step.denoised)

    def _kept(self, step: Step, painter: str) -> bytes:
        """Empty for tiles: nothing goes on from a part of a picture."""
        if isinstance(self.painter, TiledPasses):
            return b""
        return pack_step(step, self._hardware.backend, painter, wraps=self._resolved.tiling)

    @torch.inference_mode()
    def _finish(self, index: int, latents: Tensor, vae: LoadedVae) -> Iterator[Event]:
        """Decode a picture, unless an attempt before did or the job is left meanwhile; its file is made beside what is painted next."""
        if index in self._decoded:
            return
        height, width = (side * vae.latent.scale for side in latents.shape[1:])
        tiled, coding = self._coding.tiled(width, height), self._coding
        work = final_picture(
            latents, self._resolved.hires, vae, coding.upscaler, tiled=tiled, wraps=self._resolved.tiling
        )
        decoded = yield from self._teller.told(work, self._left)
        if decoded is None:
            return
        picture = self._restored(decoded)
        if self._canvas is not None:
            picture = self._canvas.finished(picture)
        self._write(index, picture)

    def _restored(self, picture: Image.Image) -> Image.Image:
        """With its faces painted anew, where that is asked for. Raises `Left`."""
        if self._restore is None:
            return picture
        with between(self._coding.ask):
            return self._restore(picture)

    def _write(self, index: int, picture: Image.Image) -> None:
        """Have the file made of a picture, unless an attempt before did."""
        if index in self._decoded:
            return
        backend = ", ".join((self._hardware.backend, *sorted(self._coding.marks)))
        infotext = write_infotext(self._resolved, index, __version__, backend)

        def write() -> ImageReady:
            return ImageReady(
                index=index,
                seed=self._resolved.seeds[index],
                width=picture.width,
                height=picture.height,
                infotext=infotext,
                png=encode_png(picture, infotext),
            )

        self._files.append(self._writer.submit(write))
        self._decoded.add(index)
        self.images += 1

    def _ready(self) -> Iterator[Event]:
        """Pictures whose files are done. On the CPU they are waited for: there the next step would only take the time away."""
        for index, picture in self._finishing.done():
            self._write(index, picture)
        while self._files and (self._hardware.device.type == "cpu" or self._files[0].done()):
            yield self._files.popleft().result()

    def _written(self) -> Iterator[Event]:
        """Pictures whose files were begun, waited for."""
        while self._files:
            yield self._files.popleft().result()
