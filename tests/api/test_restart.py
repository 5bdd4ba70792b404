"""A server process that is killed: what comes back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from studio.paths import REPOSITORY

SMALL = {"prompt": "a fox", "width": 64, "height": 64, "seed": 5}


def start(folder: Path, step_seconds: float) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "tests.api.stand_in", str(folder), str(step_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    return process, address


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_kill_9_while_painting(tmp_path: Path) -> None:
    process, address = start(tmp_path, 0.05)
    with process, httpx.Client(base_url=f"{address}/studio/v1", timeout=20) as client:
        first = client.post("/generate", json={**SMALL, "steps": 4, "batch_count": 50}).json()["id"]
        second = client.post("/generate", json={**SMALL, "steps": 2}).json()["id"]
        while not client.get(f"/jobs/{first}").json()["images"]:
            time.sleep(0.02)
        other, refused = start(tmp_path, 0.0)
        with other:
            assert refused == ""
            assert other.stderr is not None
            assert "already in use" in other.stderr.read()
        process.kill()
    process, address = start(tmp_path, 0.0)
    with process, httpx.Client(base_url=f"{address}/studio/v1", timeout=20) as client:
        deadline = time.monotonic() + 20
        while client.get(f"/jobs/{second}").json()["status"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        stopped = client.get(f"/jobs/{first}").json()
        assert stopped["status"] == "interrupted"
        assert "server stopped" in stopped["error"]["message"]
        assert 1 <= len(stopped["images"]) < 50
        for image in client.get("/images", params={"limit": 500}).json():
            assert client.get(f"/images/{image['id']}.png").content.endswith(b"IEND\xaeB`\x82")
        retried = client.post(f"/jobs/{first}/retry").json()
        assert retried["request"] == stopped["request"]
        process.kill()
    assert len(list(tmp_path.rglob("*.tmp"))) <= 2, "one for each time it was killed"
