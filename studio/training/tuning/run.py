"""One sitting from a session to a finished result, for the leading process and those beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from studio.paths import atomic_write
from studio.training.tuning.loop import Loop, Session

Export = Callable[[int, str], Path]
"""Writes the result of a step under a name and returns where it is."""


def run_session(session: Session, export: Export) -> Path:
    """Train to the end; the result has the name that the settings give, one that was asked for on the way has its step in the name too.

    `result.json` in the run folder then holds `{"file": absolute path, "step": …, "name": …}`. Raises as `Loop.run` does.
    """
    context = session.context
    name = session.method.output.name or context.config.name

    def led(step: int, stem: str) -> Path:
        """Only the leading process writes; the others wait and are told the name alone."""
        path = export(step, stem) if context.team.leads else Path(stem)
        context.team.wait()
        return path

    path = Loop(session, lambda step, final: led(step, name if final else f"{name}-step{step:06d}")).run()
    if context.team.leads:
        facts = {"file": os.fspath(path.absolute()), "name": path.stem, **session.facts}
        atomic_write(context.run.result, json.dumps(facts, indent=2).encode() + b"\n")
    return path
