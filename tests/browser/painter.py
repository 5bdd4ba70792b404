"""`PaintingEngine`: suns over beaches, painted step by step, so that strips and pictures can be looked at and told apart.

Every pixel depends on the seed and the size, and the file also on every other part of the request, through its infotext.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.engine.fake import FakeEngine
from studio.errors import OutOfMemory
from studio.infotext import encode_png, write_infotext
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started, Status
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

Pixels = NDArray[np.float64]


class PaintingEngine(FakeEngine):
    """A `FakeEngine` with something to see. A prompt with the word "fail" fails.

    What a test wants to see halfway is held there until the test says go on: a slow machine cannot be too late for it.
    """

    _held_before = 0
    _held_prompt = ""

    def hold(self, before: int, prompt: str = "") -> None:
        """From now on a run waits before this step of each batch, if `prompt` is in its prompt, until it is cancelled."""
        self._held_before, self._held_prompt = before, prompt

    def go_on(self) -> None:
        """Nothing is held any more."""
        self._held_before = 0

    def _wait(self, resolved: ResolvedRequest, step: int, cancel: CancelToken) -> None:
        time.sleep(self.step_seconds)
        while 0 < self._held_before <= step and self._held_prompt in resolved.positive.text and cancel.mode == "none":
            time.sleep(0.005)

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        self.runs.append(resolved)
        self.kept.append(kept)
        yield Started()
        yield Status(message=f"loading {resolved.model.name}")
        if "fail" in resolved.positive.text:
            raise OutOfMemory(f"The device has too little memory for {resolved.positive.text}: lower the batch size.")
        done, began = 0, time.monotonic()
        for batch in range(resolved.batch_count):
            places = range(batch * resolved.batch_size, (batch + 1) * resolved.batch_size)
            total = resolved.steps + (resolved.hires.steps if resolved.hires else 0)
            first = resolved.branch.step if resolved.branch and kept else 0
            for step in range(first + 1, total + 1):
                width, height = resolved.final_size if step > resolved.steps else (resolved.width, resolved.height)
                if step in (first + 1, resolved.steps + 1):
                    scenes = [scene(width, height, resolved.seeds[place]) for place in places]
                self._wait(resolved, step, cancel)
                if cancel.mode != "none":
                    break
                done_before, of = (
                    (resolved.steps, total - resolved.steps) if step > resolved.steps else (0, resolved.steps)
                )
                sigma = 14.6 * (1 - (step - done_before) / of) ** 2.2
                previews = tuple(jpeg(noisy(pixels, sigma, step)) for pixels in scenes)
                facts = (
                    f"{width} {height} {sigma} {step} {' '.join(map(str, resolved.seeds[places.start : places.stop]))}"
                )
                latents = facts.encode() if resolved.options.keep_latents else b""
                yield Progress(latents=latents, batch=batch, batches=resolved.batch_count, step=step, total=total, sigma=sigma,
                               previews=previews if self._draws(resolved, step) else (), seconds=time.monotonic() - began)  # fmt: skip
            if cancel.mode == "skip":
                cancel.clear_skip()
                continue
            if cancel.mode == "interrupt":
                break
            for place, pixels in zip(places, scenes, strict=True):
                text = write_infotext(resolved, place, "test")
                png = encode_png(Image.fromarray(pixels.astype(np.uint8)), text)
                yield ImageReady(index=place, seed=resolved.seeds[place], width=pixels.shape[1], height=pixels.shape[0],
                                 infotext=text, png=png)  # fmt: skip
                done += 1
        stopped = cancel.mode == "interrupt"
        seconds = time.monotonic() - began
        yield Cancelled() if stopped and not done else Finished(images=done, seconds=seconds, interrupted=stopped)

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """The picture of a preview without its grain."""
        width, height, sigma, step, *seeds = latents.decode().split()
        pixels = noisy(scene(int(width), int(height), int(seeds[index])), float(sigma) / 4, int(step))
        return encode_png(Image.fromarray(pixels.astype(np.uint8)), "")

    def info(self) -> EngineInfo:
        return EngineInfo(
            state="ready", device="cpu", dtype="float32", memory=1_400_000_000, torch="2.13.0", attention="sdpa"
        )

    @staticmethod
    def _draws(resolved: ResolvedRequest, step: int) -> bool:
        every = resolved.options.preview_every
        return bool(every) and (step % every == 0 or step == resolved.steps)


def scene(width: int, height: int, seed: int) -> Pixels:
    """A picture, float 0..255 [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width, y / height
    sky = np.array([140, 196, 239]) * (0.7 + 0.4 * random.random(3))
    sea = np.array([47, 143, 198]) * (0.7 + 0.4 * random.random(3))
    horizon = 0.5 + 0.12 * random.random()
    picture = np.where((down < horizon)[..., None], sky * (1 - 0.25 * down[..., None]), sea)
    picture = np.where((down > horizon + 0.14)[..., None], np.array([233, 209, 154]), picture)
    centre = (0.3 + 0.4 * random.random(), horizon - 0.1 - 0.15 * random.random())
    radius = 0.1 + 0.08 * random.random()
    longest = max(width, height)
    distance = np.hypot((across - centre[0]) * width / longest, (down - centre[1]) * height / longest)
    edge = np.clip((radius - distance) * longest / 1.5, 0, 1)[..., None]
    sun = np.array([255, 150, 70]) - np.array([25, 75, 35]) * (distance / radius)[..., None]
    return np.clip(picture * (1 - edge) + sun * edge, 0, 255)


def noisy(pixels: Pixels, sigma: float, seed: int) -> Pixels:
    """What a model might believe at this noise level: grey and grainy early, sharp late."""
    grain = np.random.default_rng(seed).normal(0, min(50.0, sigma * 5), pixels.shape)
    share = 1 / (1 + 0.35 * sigma)
    return np.clip(pixels * share + pixels.mean((0, 1)) * (1 - share) + grain, 0, 255)


def jpeg(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
