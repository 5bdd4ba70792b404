"""The measuring side of a contender's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.peers.contender import COMFYUI
from studio.paths import REPOSITORY

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""As the program's worker does."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **PASSIVE}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
_TAIL = 400
_PATIENCE = 30.0
"""Seconds that a process may take to end after its last question."""


class ContenderFailed(Exception):
    """A contender cannot run, has died, or gave an answer that does not count; the message says why."""


class Process:
    """One contender in a process of its own. It begins to load at once, also before it is asked anything. Close it.

    On the `device` cpu it has one thread, beside a card as many as there are cores.
    """

    def __init__(self, name: str, root: Path, checkout: Path | None, device: str = "cpu") -> None:
        self.name = name
        self._log = root / f"{name}.log"
        python, extra = sys.executable, []
        if name == COMFYUI:
            assert checkout is not None, "asked for without a checkout"
            python, extra = find_python(checkout), [str(checkout)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-m", "bench.peers.worker", name, str(root), device, *extra],
                cwd=REPOSITORY,
                env={**os.environ, **(THREADS if device == "cpu" else PASSIVE), **_OFFLINE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer, whenever it comes. Raises `ContenderFailed`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended; what it said last tells why
        line = self._process.stdout.readline()
        if not line:
            tail = self._log.read_text("utf-8", "replace")[-_TAIL:].strip()
            raise ContenderFailed(f"{self.name} ended with exit code {self._process.wait()}: {tail}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderFailed(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Let it end, by force if need be. Idempotent."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was written last found no reader
                    pass
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def find_python(checkout: Path) -> str:
    """The Python of an environment inside a ComfyUI checkout (`.venv` or `venv`); ours where it has none."""
    places = [checkout / name / part for name in (".venv", "venv") for part in ("bin/python", "Scripts/python.exe")]
    return next((str(place) for place in places if place.is_file()), sys.executable)
