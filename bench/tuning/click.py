"""How soon a run that is started over HTTP shows life, and how soon it ends when it is asked to: against a real server on a data folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.tuning.contender import MODEL, PICTURES, RANK
from studio.paths import REPOSITORY, Paths
from studio.training.runs import RunFolder
from studio.training.sitting import last_sitting

POLL_SECONDS = 0.005
PATIENCE_SECONDS = 600
"""How long the server may take to be ready, and a run to say something."""
ENDING_SECONDS = 30
"""How long the server, and then who trains, may take to end."""
STEPS = 1000
"""More than are trained: the run is stopped."""
STOP_AFTER = 3
"""Steps before it is asked to stop."""


def measure(root: Path, side: int) -> dict[str, Any]:
    """Wall seconds from the request to the first event and to the first step, and from the wish to stop until it has saved and stopped.

    `root` holds what `contender.make` makes, whose pictures have sides of `side` pixels. Nothing that was started outlives this call.
    Raises `TimeoutError`, and `OSError` where the server cannot be reached or the run fails.
    """
    with _server(root) as base:
        body: dict[str, Any] = {
            "name": "click",
            "method": {
                "kind": "lora", "model": MODEL, "steps": STEPS, "data": {"path": PICTURES, "resolution": side},
                "network": {"rank": RANK, "layers": "attention"}, "validation": {"share": 0},
            },
        }  # fmt: skip
        _ask(f"{base}/training/datasets/inspect", body["method"]["data"])  # as the page does when a data set is named
        began = time.monotonic()
        run = f"{base}/training/runs/{_ask(f'{base}/training/runs', body)['id']}"
        try:
            return _figures(run, began)
        finally:
            with contextlib.suppress(OSError):  # the server may be why it is broken off
                _ask(f"{run}/stop", {})  # does nothing to one that has stopped


def _figures(run: str, began: float) -> dict[str, Any]:
    """Of the run at the address `run`, which was asked for at `began` (monotonic seconds). Raises as `measure`."""
    events = _follow(f"{run}/events")
    next(events)
    first_event = time.monotonic() - began
    steps: list[float] = []
    first_step = 0.0
    for event in events:
        if event["kind"] == "failed":
            raise OSError(event["message"])
        if event["kind"] == "step":
            steps.append(event["seconds"])
            if len(steps) == 1:
                first_step = time.monotonic() - began
            if len(steps) == STOP_AFTER:
                break
    asked = time.monotonic()
    _ask(f"{run}/stop", {})
    for event in events:
        if event["kind"] == "step":
            steps.append(event["seconds"])
        if event["kind"] == "stopped":
            break
    stopped = time.monotonic() - asked
    step = max(steps[1:])
    return {
        "seconds_to_first_event": round(first_event, 3),
        "seconds_to_first_step": round(first_step, 2),
        "seconds_of_a_step": round(step, 3),
        "seconds_to_stop": round(stopped, 3),
        "stopped_within_a_step_and_a_second": stopped <= step + 1,
    }


@contextlib.contextmanager
def _server(data: Path) -> Iterator[str]:
    """The address of the native REST of a server of this program on the data folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "studio", "serve", "--no-browser", "--port", str(port), "--data-dir", str(data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}/studio/v1"
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if _ask(f"{base}/state")["engine"]["state"] != "starting":  # the process that paints warms up beside it
                    break
            except urllib.error.URLError:
                if process.poll() is not None:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError("The server is not ready.")
            time.sleep(0.1)
        yield base
    finally:
        _end(process, Paths(data).runs)


def _end(server: subprocess.Popen[Any], runs: Path) -> None:
    """Let the server end, and whoever it has started or sits at one of `runs`: those that train outlive it. By force if need be."""
    left: set[psutil.Process] = set()
    if server.poll() is None:  # else its number may be another's
        left.update(psutil.Process(server.pid).children(recursive=True))
    sittings = [last_sitting(RunFolder(folder)) for folder in runs.glob("*")]
    left.update(process for each in sittings if each and (process := each.process()))
    server.terminate()
    try:
        server.wait(ENDING_SECONDS)
        psutil.wait_procs(left, ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also when the wait is interrupted
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.kill()
        server.wait()


def _follow(address: str) -> Iterator[dict[str, Any]]:
    """The run's events as they come. Raises `TimeoutError` when none came for `PATIENCE_SECONDS`."""
    offset, deadline = 0, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = _ask(f"{address}?offset={offset}")
        if answer["events"]:
            yield from answer["events"]
            deadline = time.monotonic() + PATIENCE_SECONDS
        offset = answer["offset"]
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"The run did nothing for {PATIENCE_SECONDS} seconds.")


def _ask(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))
