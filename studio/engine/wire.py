"""Messages between the server and its worker process: JSON with binary parts, over two pipes. No pickle, no torch.

A frame is a 4-byte big-endian length, that many bytes of UTF-8 JSON, then the binary parts one after the other:

    {"kind": "event", "body": {…}, "blobs": [18230, 17911]}  +  18230 bytes  +  17911 bytes

| from the server | body | |
|---|---|---|
| `run` | `job`, `resolved` | paint; answers are `event`s, then `done` or `error`; the kept latents of a branch as a binary part |
| `decode` | `job`, `model`, `vae`, `index` | decode the latents in the binary part; the answer is `decoded` or `error` |
| `skip`, `interrupt` | `job` | see `CancelToken` |
| `warm` | `model` | load this checkpoint ahead |
| (end of the stream) | | end at once, whatever is being done |

| from the worker | body | |
|---|---|---|
| `info` | an `EngineInfo` | at every change and as a heartbeat; the first one says that it is ready |
| `event` | `job`, `event` | previews, latents and PNG travel as binary parts |
| `decoded` | `job` | the PNG is the binary part |
| `done` | `job` | nothing more comes for this job |
| `error` | `job`, `error` | the same, after a `StudioError` |
| `failed` | `error` | it cannot start at all, and ends |
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from studio.schema.events import Event, ImageReady, Progress

MAX_JSON = 64 * 2**20
MAX_BLOBS = 2**30
STUCK_SECONDS = 2.0
EXIT_CANNOT_START = 3
"""Exit code of a worker that sent `failed`."""
EXIT_BROKEN_DEVICE = 4
"""Exit code of a worker whose device is lost; the job that met it was told before."""
_LENGTH = struct.Struct(">I")
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class WireError(Exception):
    """What came through the pipe is no frame: something else wrote into it, or the other side is another version."""


@dataclass(frozen=True)
class Message:
    """One frame."""

    kind: str
    body: dict[str, Any] = field(default_factory=dict)
    blobs: tuple[bytes, ...] = ()


class Channel:
    """Both directions of the pipe. `send` may be called from any thread, `receive` from one."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, kind: str, body: dict[str, Any] | None = None, blobs: Sequence[bytes] = ()) -> None:
        """Write one frame.

        Raises ValueError when closed, and OSError when nobody reads any more: BrokenPipeError at once, TimeoutError
        when an earlier frame has been stuck for `STUCK_SECONDS`.
        """
        head = {"kind": kind, "body": body or {}, "blobs": [len(blob) for blob in blobs]}
        text = json.dumps(head, separators=(",", ":")).encode()
        with self._writing():
            self._writer.write(b"".join((_LENGTH.pack(len(text)), text, *blobs)))
            self._writer.flush()

    def receive(self) -> Message | None:
        """The next frame; None when the other side has closed (also in the middle of a frame). Raises `WireError`."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > MAX_JSON:
            raise WireError(f"a frame of {length} bytes is announced; {MAX_JSON} are allowed")
        text = self._read(length)
        if text is None:
            return None
        kind, body, sizes = _parse(text)
        blobs = []
        for size in sizes:
            blob = self._read(size)
            if blob is None:
                return None
            blobs.append(blob)
        return Message(kind, body, tuple(blobs))

    def close(self) -> None:
        """Close the writing end: the other side then sees the end of the stream."""
        with contextlib.suppress(OSError), self._writing():  # OSError: unsent bytes for a process that is gone
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=STUCK_SECONDS):
            raise TimeoutError("the other side does not read")
        try:
            yield
        finally:
            self._lock.release()

    def _read(self, size: int) -> bytes | None:
        data = self._reader.read(size)
        return data if len(data) == size else None


def pack_event(event: Event) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """An event as JSON and binary parts."""
    if isinstance(event, Progress):
        return event.model_dump(mode="json", exclude={"previews", "latents"}), (*event.previews, event.latents)
    if isinstance(event, ImageReady):
        return event.model_dump(mode="json", exclude={"png"}), (event.png,)
    return event.model_dump(mode="json"), ()


def unpack_event(body: dict[str, Any], blobs: tuple[bytes, ...]) -> Event:
    """The inverse of `pack_event`. Raises `WireError` for what is no event."""
    parts: dict[str, Any] = {}
    if body.get("type") == "progress" and blobs:
        parts = {"previews": blobs[:-1], "latents": blobs[-1]}
    elif body.get("type") == "image" and len(blobs) == 1:
        parts = {"png": blobs[0]}
    try:
        return _EVENTS.validate_python({**body, **parts})
    except ValidationError as error:
        raise WireError(f"not an event: {error}") from error


def _parse(text: bytes) -> tuple[str, dict[str, Any], list[int]]:
    try:
        head = json.loads(text)
        kind, body, sizes = head["kind"], head["body"], head["blobs"]
    except (ValueError, KeyError, TypeError) as error:
        raise WireError(f"not a frame: {text[:80]!r}") from error
    sound = isinstance(kind, str) and isinstance(body, dict) and isinstance(sizes, list)
    if not sound or not all(type(size) is int and size >= 0 for size in sizes) or sum(sizes) > MAX_BLOBS:
        raise WireError(f"not a frame: {text[:80]!r}")
    return kind, body, sizes
