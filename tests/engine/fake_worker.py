"""A worker process around `FakeEngine`, which needs no torch: `python -m tests.engine.fake_worker STEP_SECONDS [BEHAVIOUR]`.

It makes the behaviour of a process testable in a fraction of a second: `noise` prints before, `cannot-start` reports an
error, `crash` exits at once, `slow-start` takes two seconds to become ready, `lost-device` breaks its engine in every job, `tell-kept` writes the latents a branch was given into its pictures' text.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from studio.engine.fake import FakeEngine
from studio.engine.worker import open_channel, serve
from studio.errors import EngineError, SettingsError
from studio.schema.engine import CancelToken, Engine, EngineInfo
from studio.schema.events import Event
from studio.schema.resolved import ResolvedRequest


class LosingEngine(FakeEngine):
    """Every job loses the device."""

    lost = False

    def run(self, resolved: ResolvedRequest, cancel: CancelToken, kept: bytes = b"") -> Iterator[Event]:
        yield from list(super().run(resolved, cancel, kept))[:1]
        self.lost = True
        raise EngineError("The device fake failed.")

    def info(self) -> EngineInfo:
        return EngineInfo(state="failed", message="lost") if self.lost else EngineInfo(state="ready", pid=os.getpid())


def main() -> int:
    seconds, behaviour = float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    channel = open_channel()

    def make_engine() -> Engine:
        if behaviour == "noise":
            print("a library prints")
            os.write(1, b"so does native code\n")
        if behaviour == "cannot-start":
            raise SettingsError("Device 'cuda' was asked for, but there is none.", field="device")
        if behaviour == "crash":
            sys.stderr.write("ImportError: libfoo.so: cannot open shared object file\n")
            os._exit(7)
        if behaviour == "slow-start":
            time.sleep(2.0)
        engine = LosingEngine() if behaviour == "lost-device" else FakeEngine(step_seconds=seconds)
        if behaviour == "tell-kept":
            engine.infotext = lambda resolved, index: f"kept: {engine.kept[-1].decode()}"
        return engine

    return serve(channel, make_engine)


if __name__ == "__main__":
    raise SystemExit(main())
