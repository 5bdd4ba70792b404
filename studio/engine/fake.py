"""`FakeEngine`: the engine seam without a model, for testing everything above it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator

from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest


class FakeEngine:
    """Yields plausible events and flat-coloured PNGs whose colour is a function of the seed.

    `step_seconds` slows it down; `fail_with` makes every job raise; `infotext(resolved, index)` fills the PNG's text.
    """

    def __init__(
        self,
        step_seconds: float = 0.0,
        fail_with: Exception | None = None,
        infotext: Callable[[ResolvedRequest, int], str] | None = None,
    ) -> None:
        self.step_seconds = step_seconds
        self.fail_with = fail_with
        self.infotext = infotext or (lambda resolved, index: f"{resolved.positive.text}\nSeed: {resolved.seeds[index]}")
        self.runs: list[ResolvedRequest] = []
        self.kept: list[bytes] = []
        """What each run was given of a branch's latents."""
        self.closed = False

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        """See `Engine.run`. The latents of a step are its seed and number as text."""
        self.runs.append(resolved)
        self.kept.append(kept)
        yield Started()
        if self.fail_with is not None:
            raise self.fail_with
        done, began = 0, time.monotonic()
        total = resolved.steps + (resolved.hires.steps if resolved.hires and resolved.hires.denoising_strength else 0)
        width, height = resolved.final_size
        for batch in range(resolved.batch_count):
            seed = resolved.seeds[batch * resolved.pictures_at_once]
            for step in range(1, total + 1):
                time.sleep(self.step_seconds)
                if cancel.mode != "none":
                    break
                preview = _picture(8, 8, seed, "JPEG", "")
                latents = f"{seed}/{step}".encode() if resolved.options.keep_latents else b""
                yield Progress(batch=batch, batches=resolved.batch_count, step=step, total=total,
                               sigma=float(total - step), previews=(preview,) * resolved.pictures_at_once, latents=latents,
                               seconds=time.monotonic() - began)  # fmt: skip
            if cancel.mode == "skip":
                cancel.clear_skip()
                continue
            if cancel.mode == "interrupt":
                break
            for index in range(batch * resolved.pictures_at_once, (batch + 1) * resolved.pictures_at_once):
                text, seed = self.infotext(resolved, index), resolved.seeds[index]
                png = _picture(width, height, seed, "PNG", text)
                yield ImageReady(index=index, seed=seed, width=width, height=height, infotext=text, png=png)
                done += 1
        stopped = cancel.mode == "interrupt"
        yield (
            Cancelled()
            if stopped and not done
            else Finished(images=done, seconds=time.monotonic() - began, interrupted=stopped)
        )

    def decode(self, model: ModelInfo, vae: ModelInfo | None, latents: bytes, index: int) -> bytes:
        """See `Engine.decode`: the colour of the seed that the latents name, and `index`."""
        seed = int(latents.decode().partition("/")[0])
        return _picture(64, 64, seed + index, "PNG", "")

    def info(self) -> EngineInfo:
        """Always ready, on no device."""
        return EngineInfo(state="stopped" if self.closed else "ready", device="fake", dtype="none")

    def start(self, model: ModelInfo | None = None) -> None:
        """Nothing to warm up."""

    def close(self) -> None:
        """Remembered, so that tests can ask."""
        self.closed = True


def _picture(width: int, height: int, seed: int, form: str, text: str) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, chunks = io.BytesIO(), PngInfo()
    if text:
        chunks.add_itxt("parameters", text)
    colour = (seed % 256, seed // 256 % 256, 128)
    Image.new("RGB", (width, height), colour).save(buffer, form, **({"pnginfo": chunks} if form == "PNG" else {}))
    return buffer.getvalue()
