"""Processes that train one run together, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from studio.paths import REPOSITORY


def pair(code: str, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """Two processes of this Python code that find each other, the leading one first; both streams of what they print can be read."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=REPOSITORY,
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
