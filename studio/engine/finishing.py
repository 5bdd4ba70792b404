"""Finished latents decoded in a thread of their own while the next batch is denoised, on devices that compute both at once.

Nothing is computed in another way, so the pictures stay the same. On a card the thread's work goes to a stream of its own, behind the
steps that it needs. What either leaves idle there, the other can use; how much that is depends on the card.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from studio.engine.decode import NotAlone
from studio.engine.failure import is_out_of_memory
from studio.engine.hardware import Hardware
from studio.engine.saving import DECODED_CHANNELS

DENOISED_CHANNELS = 400
"""Feature maps at full size that a U-Net of Stable Diffusion's shape holds at once for a picture, both of its prompts together: 260 by count,
and half as many again for what kernels take beside."""


@dataclass(frozen=True)
class Given:
    """A picture that the thread was given: its number in the job, its latents [C, h, w], and what becomes of it.

    The result is None where the thread left it undone: memory ran out, or the VAE would have had to be converted.
    """

    index: int
    latents: Tensor
    result: Future[Image.Image | None]

    def picture(self) -> Image.Image | None:
        """The result, waited for. Raises what went wrong."""
        return self.result.result()


class Finishing:
    """The thread, and what it was given, in the order of the pictures. Everything here is called by the thread that denoises.

    When memory runs out in the thread, or the VAE gives no picture as it is, it leaves what it was given undone, and takes nothing more.
    """

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._thread = ThreadPoolExecutor(1, "decode")
        self._given: deque[Given] = deque()
        self._leaves = False
        self._alone = False
        self.ran_out = False
        """Whether memory is why it left something undone."""

    def has_room(self, width: int, height: int, batch: int) -> bool:
        """Whether it may decode a picture of so many pixels while a `batch` of such is denoised: where device and memory allow both."""
        hardware = self._hardware
        if self._leaves or not hardware.overlaps:
            return False
        decoding = DECODED_CHANNELS * hardware.vae_dtype.itemsize
        denoising = DENOISED_CHANNELS * hardware.dtype.itemsize * batch
        return width * height * (decoding + denoising) <= hardware.free_memory()

    def take(self, first: int, latents: Iterable[Tensor], decode: Callable[[Tensor], Image.Image]) -> None:
        """Decode these, each [C, h, w], the first of which is picture `first` of the job. `decode` ends with the picture on the processor."""
        after = _reached(self._hardware.device)
        for index, one in enumerate(latents, first):
            self._given.append(Given(index, one, self._thread.submit(self._decoded, one, after, decode)))

    def done(self) -> Iterator[tuple[int, Image.Image]]:
        """The pictures that are decoded by now, taken out, without waiting; none behind one that was left undone. Raises what went wrong."""
        while self._given and self._given[0].result.done():
            picture = self._given[0].picture()
            if picture is None:
                return
            yield self._given.popleft().index, picture

    def first(self) -> Given | None:
        """The first that was given and not taken out."""
        return self._given[0] if self._given else None

    def drop(self) -> None:
        """Take the first out."""
        self._given.popleft()

    def stop(self) -> bool:
        """Take nothing more, and wait for the picture being decoded; those behind it are left undone.

        Whether that changes anything: it had something to decode, and was not stopped before.
        """
        had_company = bool(self._given) and not self._alone
        self._leaves = self._alone = True
        wait([given.result for given in self._given])
        return had_company

    def close(self) -> None:
        """End the thread, after the picture that it decodes: nobody uses the VAE any more then."""
        self._leaves = True
        self._thread.shutdown(wait=True)

    @torch.inference_mode()
    def _decoded(
        self, latents: Tensor, after: torch.cuda.Event | None, decode: Callable[[Tensor], Image.Image]
    ) -> Image.Image | None:
        """What the thread does with a picture."""
        if self._leaves:
            return None
        try:
            with _own_stream(latents, after):
                return decode(latents)
        except NotAlone:
            self._leaves = True
            return None
        except Exception as error:
            self._leaves = True
            if not is_out_of_memory(error):
                raise
            self.ran_out = True
            traceback.clear_frames(error.__traceback__)  # or they hold what there is too little of
            return None


def _reached(device: torch.device) -> torch.cuda.Event | None:
    """A mark behind the work that a card has been given so far; None elsewhere."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


@contextmanager
def _own_stream(latents: Tensor, after: torch.cuda.Event | None) -> Iterator[None]:
    """While this lasts the work of this thread with `latents` goes to a stream of its own, behind the mark. Without one there are no streams."""
    if after is None:
        yield
        return
    stream = _stream(latents.device)
    stream.wait_event(after)
    latents.record_stream(stream)  # their memory belongs to the other stream, which must not use it again before
    with torch.cuda.stream(stream):
        yield


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The same for all jobs, because freed memory is kept for the stream that it was used in."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
