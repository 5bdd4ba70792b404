"""How a run of several processes ends: as the process says that ended it, not as those that break because it is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from studio.training.runs import RunFailed, RunFolder, read_events
from studio.training.sitting import claim
from tests.training.processes import pair
from tests.training.tuning import run_in, settings

MEMBER = """
import os, signal, sys
from studio.errors import StorageError
from studio.training import methods, worker
from studio.training.context import StopTraining

def ends(how):
    if how == "stop":
        raise StopTraining
    if how == "fail":
        raise StorageError("The disk is full.")
    if how == "break":
        raise ValueError("out of memory")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return "model"

def run_method(context):
    context.team.wait()
    if str(context.team.rank) == sys.argv[3]:
        return ends(sys.argv[2])
    context.team.wait()

methods.run_method = run_method
sys.exit(worker.main([sys.argv[1], "--device", "cpu", "--threads", "1"]))
"""


def endings(run: RunFolder) -> list[tuple[str, str]]:
    found = [event for event in read_events(run)[0] if event.kind in ("failed", "stopped", "finished")]
    return [(event.kind, event.message if isinstance(event, RunFailed) else "") for event in found]


@pytest.mark.parametrize(
    ("how", "rank", "expected"),
    [
        ("stop", 0, [("stopped", "")]),
        ("fail", 0, [("failed", "The disk is full.")]),
        ("fail", 1, [("failed", "The disk is full.")]),
        (
            "break",
            1,
            [
                (
                    "failed",
                    "Training broke down (ValueError: out of memory). What it had saved is kept; its log has the details.",
                )
            ],
        ),
        ("die", 0, []),  # which counts as interrupted, and is
    ],
)
def test_whoever_ends_a_shared_run_says_how(
    how: str, rank: int, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    run = run_in(tmp_path, {**settings(), "processes": 2})
    claim(run).close()
    run.append(RunFailed(time=time.time(), message="At an earlier sitting."))
    members = pair(MEMBER, str(run.path), how, str(rank))
    said = [member.communicate(timeout=100)[1].decode() for member in members]
    assert endings(run)[1:] == expected
    assert "Error" in said[1 - rank]  # what broke the other is in its log
