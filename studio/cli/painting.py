"""What commands that paint share: a studio without a queue, and Ctrl-C that stops after a step."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator

from studio.app import Studio
from studio.building import build
from studio.cli.interrupt import interruptible
from studio.cli.options import open_settings, say
from studio.schema.engine import CancelToken


@contextlib.contextmanager
def opened_studio(arguments: argparse.Namespace) -> Iterator[tuple[Studio, CancelToken]]:
    """The studio that `arguments` ask for and what interrupts its painting: within the block the first Ctrl-C does."""
    settings, paths, notes = open_settings(arguments)
    for note in notes:
        say(note)
    studio, cancel = build(settings, paths, queue=False), CancelToken()
    try:
        with interruptible(cancel.interrupt, "stopping after this step (Ctrl-C again to quit at once)"):
            yield studio, cancel
    finally:
        studio.close()
