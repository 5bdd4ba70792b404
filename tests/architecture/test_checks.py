"""ruff and mypy as tests, so that the last lines of `launch.py test` speak for them too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.source import ROOT

SHOWN = 3000  # characters of a tool's output; run the tool for the rest


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--output-format", "concise", "."], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "--output-format", "concise", "."], id="ruff-format"),
        pytest.param(["mypy"], id="mypy-strict", marks=pytest.mark.slow),
    ],
)
def test_clean(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    output = (done.stdout + done.stderr).strip()
    assert done.returncode == 0, f"{' '.join(command)}:\n{output[-SHOWN:]}"
