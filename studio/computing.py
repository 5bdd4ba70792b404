"""What stands in the environment of a process that computes with PyTorch, from before it imports it. What the user has put there counts more."""

from __future__ import annotations

import os
from collections.abc import Collection

from studio.schema.levers import LeverName

_SETTINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads make it ten times slower beside a busy neighbour
    "THP_MEM_ALLOC_ENABLE": "1",  # PyTorch asks Linux for huge pages for tensors from 2 MiB on
}


def computing_environment(without: Collection[LeverName] = ()) -> dict[str, str]:
    """The whole environment for such a process, which leaves out levers of speed."""
    return _settings(without) | os.environ


def prepare_to_compute(without: Collection[LeverName] = ()) -> None:
    """Make this process such a one. PyTorch may not have been imported yet."""
    for name, value in _settings(without).items():
        os.environ.setdefault(name, value)


def _settings(without: Collection[LeverName]) -> dict[str, str]:
    left_out = {"THP_MEM_ALLOC_ENABLE"} if "huge-pages" in without else set()
    return {name: value for name, value in _SETTINGS.items() if name not in left_out}
