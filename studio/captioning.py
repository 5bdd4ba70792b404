"""Captions written in the background, by a process of their own: the server loads no network. Composition: the faces use only this.

One data set at a time. What has been written stays when it is stopped or the server ends, and its pictures keep it when it is begun again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from studio.errors import InvalidRequest, NotFound
from studio.paths import REPOSITORY, Paths
from studio.schema.training_data import CaptionerInfo, CaptionTask, DatasetSettings
from studio.training.captioning import CAPTIONERS
from studio.training.captioning.files import missing

COMMAND = (sys.executable, "-m", "studio.training.captioning.worker")
SHOWN_PROBLEMS = 100
LOG_TAIL = 300


class CaptionRunner:
    """The captioners, and the data set that one of them is at. Thread-safe."""

    def __init__(self, paths: Paths, written: Callable[[], None] = lambda: None) -> None:
        """`written` is called when captions have changed."""
        self._paths = paths
        self._written = written
        self._lock = threading.Lock()
        self._task: CaptionTask | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def captioners(self) -> list[CaptionerInfo]:
        """All of them, also those that lack something."""
        return [
            CaptionerInfo(name=name, problem=missing(name, self._paths.captioners))
            for name in sorted(CAPTIONERS.names())
        ]

    def task(self) -> CaptionTask | None:
        """What runs, or ran last; None when nothing has since the server began."""
        return self._task

    def busy(self, settings: DatasetSettings) -> bool:
        """Whether captions of this data set are being written."""
        task = self._task
        return task is not None and task.state == "running" and task.path == settings.path

    def start(self, settings: DatasetSettings, captioner: str, device: str, *, replace: bool) -> CaptionTask:
        """Begin with a data set that is placed. Raises `UnknownName`, `NotFound` saying what to put where, `InvalidRequest` while another is written."""
        CAPTIONERS.get(captioner, field="captioner")
        if lack := missing(captioner, self._paths.captioners):
            raise NotFound(lack, field="captioner")
        order = {
            "path": settings.path, "format": settings.format, "captioner": captioner, "models": str(self._paths.captioners), "device": device,
            "replace": replace,
        }  # fmt: skip
        with self._lock:
            if self._task is not None and self._task.state == "running":
                raise InvalidRequest(f"Captions of {self._task.path} are being written; wait for the end, or stop it.")
            log = self._paths.state / "captioning.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as errors:
                self._process = subprocess.Popen(
                    [*COMMAND, json.dumps(order)],
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            self._task = CaptionTask(path=settings.path, captioner=captioner, state="running")
            threading.Thread(target=self._follow, args=(self._process,), name="captions", daemon=True).start()
            return self._task

    def stop(self) -> CaptionTask | None:
        """End it; what is written stays."""
        with self._lock:
            if self._task is not None and self._task.state == "running" and self._process is not None:
                self._change(state="stopped")
                self._process.terminate()
            return self._task

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None, "it was asked for"
        with process.stdout as lines:
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):  # what a library prints is no news
                    self._take(process, json.loads(line))
        code = process.wait()
        with self._lock:
            if process is self._process and self._task is not None and self._task.state == "running":
                self._change(state="failed", message=f"The process ended with code {code}. {self._log_tail()}".strip())
        self._written()

    def _take(self, process: subprocess.Popen[bytes], told: dict[str, Any]) -> None:
        with self._lock:
            if process is not self._process:
                return  # one that was stopped is still ending, and the task is the next one's
            if "error" in told:
                self._change(state="failed", message=told["error"])
            elif "written" in told:
                problems = told["problems"]
                self._change(
                    state="finished", written=told["written"], kept=told["kept"], problems=tuple(problems[:SHOWN_PROBLEMS]),
                    problem_count=len(problems),
                )  # fmt: skip
            else:
                self._change(done=told["done"], total=told["total"])

    def _change(self, **facts: Any) -> None:
        assert self._task is not None, "there is one while its process lives"
        self._task = self._task.model_copy(update=facts)

    def _log_tail(self) -> str:
        try:
            return (self._paths.state / "captioning.log").read_text("utf-8", "replace")[-LOG_TAIL:].strip()
        except OSError:
            return ""
