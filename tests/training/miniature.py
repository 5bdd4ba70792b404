"""Miniature training runs: made, sat through, and broken off at a chosen question."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.training import context as context_module
from studio.training.context import TrainingContext
from studio.training.methods import run_method
from studio.training.runs import RunFolder


class Crash(Exception):
    """What a killed process looks like from inside: nothing more is saved."""


@contextmanager
def eager_polling() -> Iterator[pytest.MonkeyPatch]:
    """One thread, a question and a report after every step; yields the patch, for more of it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context_module, "STOP_POLL_SECONDS", 0.0)
        patch.setattr(context_module, "REPORT_SECONDS", 0.0)
        yield patch
    torch.set_num_threads(threads)


def new_run(folder: Path, config: dict[str, Any]) -> RunFolder:
    """A run folder of ``config`` in which nothing has happened."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return RunFolder(folder)


def sit(run: RunFolder, interrupted: Callable[[], bool] = lambda: False) -> Path:
    """Run or resume ``run``."""
    return run_method(TrainingContext(run.config(), run, interrupted))


def after(calls: int, error: type[Exception] | None = None) -> Callable[[], bool]:
    """Says yes (or raises) at the ``calls``-th question."""
    left = iter(range(calls - 1, -1, -1))

    def asked() -> bool:
        if next(left) > 0:
            return False
        if error is not None:
            raise error
        return True

    return asked
