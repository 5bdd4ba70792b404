"""The worker process: one engine behind a pipe. Run as `python -m studio.engine.worker --device auto --attention auto`.

The frames of `wire.py` come in on stdin and go out on what was stdout; anything a library prints lands on stderr, which
the server keeps as the worker's log. Three threads: this one paints; one reads requests, so that a cancel is heard in
the middle of a step; one sends a sign of life every second. The process ends when its stdin ends, that is, when the
server is gone in whatever way.

It is not a server: it has one client, the process that started it, and trusts what that one says.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from studio.computing import prepare_to_compute
from studio.engine.wire import EXIT_BROKEN_DEVICE, EXIT_CANNOT_START, Channel, Message, pack_event
from studio.errors import EngineError, StudioError, error_text
from studio.schema.engine import CancelToken, Engine
from studio.schema.levers import levers
from studio.schema.models import ModelInfo
from studio.schema.resolved import ResolvedRequest

HEARTBEAT_SECONDS = 1.0
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.engine.worker", description="Paints for a server; not meant to be run by hand."
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compiled", default="off")
    parser.add_argument("--without", default="")
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--copies", type=Path, help="folder of converted copies of checkpoints")
    parser.add_argument("--copies-bytes", type=int, default=0)
    options = parser.parse_args(arguments)
    channel = open_channel()
    os.environ.update(_OFFLINE)
    without = levers(options.without)
    prepare_to_compute(without)

    def make_engine() -> Engine:
        from studio.engine.hardware import choose_hardware, use_all_cores

        choices = (options.device, options.attention, options.precision, options.compiled, without)
        choose_hardware(*choices)  # a wrong choice is told before the long imports
        use_all_cores()
        from studio.engine.loading_copies import Copies
        from studio.engine.runner import DiffusersEngine

        copies = options.copies and Copies(options.copies, options.copies_bytes)
        if copies:
            copies.trim()
        return DiffusersEngine(*choices, checkpoints=options.checkpoints, copies=copies)

    return serve(channel, make_engine)


def open_channel() -> Channel:
    """Take stdin and stdout for frames, and give libraries an empty stdin and stderr as their stdout, also below Python."""
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return Channel(reader, writer)


def serve(channel: Channel, make_engine: Callable[[], Engine]) -> int:
    """Answer requests; ends the process when the pipe ends. Returns an exit code when it cannot start or go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole terminal group; the server decides
    faulthandler.enable()
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    requests = _Requests(channel)
    try:
        engine = make_engine()
    except StudioError as error:
        return _cannot_start(channel, error)
    except Exception as error:  # whatever an import or a driver can throw: the server must hear of it
        log.exception("cannot start")
        return _cannot_start(channel, EngineError(f"The painting process cannot start: {error_text(error)}"))
    requests.serve_info(engine)
    return _work(channel, engine, requests)


class _Requests:
    """The reading side: a thread that sorts what comes in, and the cancel tokens of jobs not yet done."""

    def __init__(self, channel: Channel) -> None:
        self.todo: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._decodes: deque[Message] = deque()
        self._channel = channel
        self._tokens: dict[int, CancelToken] = {}
        self._engine: Engine | None = None
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def serve_info(self, engine: Engine) -> None:
        """Report the engine from now on."""
        self._engine = engine
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def token(self, job: int) -> CancelToken:
        """The token that `skip` and `interrupt` of this job act on."""
        return self._tokens.setdefault(job, CancelToken())

    def decodes(self, paths: Collection[str] | None = None) -> Iterator[Message]:
        """The wishes to decode that wait, taken out; with `paths` only those for these checkpoints."""
        for message in list(self._decodes):
            if paths is None or message.body["model"]["path"] in paths:
                self._decodes.remove(message)
                yield message

    def forget(self, job: int) -> None:
        """The job is done: later cancels of it mean nothing."""
        self._tokens.pop(job, None)

    def send_info(self) -> None:
        """Say how the engine is, once it exists."""
        if self._engine is not None:
            self._channel.send("info", self._engine.info().model_dump(mode="json"))

    def _beat(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.send_info()
            except (OSError, ValueError):
                return  # the reading thread sees the same end and acts on it
            pause.wait(HEARTBEAT_SECONDS)

    def _read(self) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                self._sort(message)
        except Exception:  # a deaf worker would be worse than a dead one
            log.exception("the server sent what this worker does not understand")
        os._exit(0)  # the server is gone: nobody waits for pictures, and nothing here needs to be put in order

    def _sort(self, message: Message) -> None:
        if message.kind == "run":
            self.token(int(message.body["job"]))
            self.todo.put(message)
        elif message.kind in ("skip", "interrupt"):
            token = self._tokens.get(int(message.body["job"]))
            if token is not None:
                token.skip() if message.kind == "skip" else token.interrupt()
        else:
            if message.kind == "decode":
                self._decodes.append(message)  # may be answered between two steps, before its turn comes
            self.todo.put(message)


def _work(channel: Channel, engine: Engine, requests: _Requests) -> int:
    while engine.info().state != "failed":  # a lost device does not come back within a process
        message = requests.todo.get()
        if message.kind == "run":
            _paint(channel, engine, message, requests)
            requests.forget(int(message.body["job"]))
            requests.send_info()
        elif message.kind == "decode":
            for wish in requests.decodes():
                _decode(channel, engine, wish)
        elif message.kind == "warm":
            engine.start(ModelInfo.model_validate(message.body["model"]))
    return EXIT_BROKEN_DEVICE


def _paint(channel: Channel, engine: Engine, message: Message, requests: _Requests) -> None:
    """Run one job and send what comes of it; ends with exactly one `done` or `error`."""
    job = int(message.body["job"])
    with _reported(channel, job, "Painting"):
        resolved = ResolvedRequest.model_validate(message.body["resolved"])
        painters = _painters(resolved)
        for event in engine.run(resolved, requests.token(job), b"".join(message.blobs)):
            body, blobs = pack_event(event)
            channel.send("event", {"job": job, "event": body}, blobs)
            for wish in requests.decodes(painters):
                _decode(channel, engine, wish)
        channel.send("done", {"job": job})


def _painters(resolved: ResolvedRequest) -> set[str]:
    """The paths of all checkpoints that a job's steps may be of; those before a branch are its origin's. What else is known of a file, its
    hash, may have been found since."""
    found = {model.path for model in resolved.checkpoints}
    return found | _painters(resolved.branch.origin) if resolved.branch else found


def _decode(channel: Channel, engine: Engine, message: Message) -> None:
    """Decode one step and send it; ends with exactly one `decoded` or `error`."""
    body = message.body
    with _reported(channel, int(body["job"]), "Decoding"):
        vae = ModelInfo.model_validate(body["vae"]) if body["vae"] else None
        png = engine.decode(ModelInfo.model_validate(body["model"]), vae, message.blobs[0], int(body["index"]))
        channel.send("decoded", {"job": body["job"]}, (png,))


@contextlib.contextmanager
def _reported(channel: Channel, job: int, what: str) -> Iterator[None]:
    """Send an exception as the job's `error`."""
    try:
        yield
    except StudioError as error:
        channel.send("error", {"job": job, "error": error.to_dict()})
    except Exception as error:  # a bug, or a library's surprise: the job fails, the process goes on
        log.exception("job failed")
        wrapped = EngineError(f"{what} failed ({error_text(error)}). The worker's log has the details.")
        channel.send("error", {"job": job, "error": wrapped.to_dict()})


def _cannot_start(channel: Channel, error: StudioError) -> int:
    channel.send("failed", {"error": error.to_dict()})
    return EXIT_CANNOT_START


if __name__ == "__main__":
    raise SystemExit(main())
