"""Ctrl-C in two stages: the first asks politely, the second ends the program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.cli.options import say


@contextmanager
def interruptible(ask: Callable[[], None], message: str) -> Iterator[None]:
    """Within the block the first Ctrl-C calls `ask` and shows `message`; a second one raises `KeyboardInterrupt`."""
    asked = False

    def stop(signum: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        ask()
        say(message)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
