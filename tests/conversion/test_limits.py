"""What the child can no longer do once it has limited itself. It is tried in a process of its own: there is no way back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

PROGRAM = """
import json, os, pickle, socket, subprocess, sys
from studio.conversion.limits import MEMORY, Refused, limit, refuse_calls
folder = sys.argv[1]
open_before = open(os.path.join(folder, "before"), "w")
limit(1000, 5000)
refuse_calls()
tries = {
    "network": lambda: socket.socket(),
    "names": lambda: socket.getaddrinfo("localhost", 80),
    "program": lambda: subprocess.Popen([sys.executable, "-c", "pass"]),
    "shell": lambda: os.system("true"),
    "exec": lambda: os.execv(sys.executable, [sys.executable]),
    "fork": lambda: os.fork(),
    "writing": lambda: open(os.path.join(folder, "after"), "w"),
    "appending": lambda: open(os.path.join(folder, "before"), "a"),
    "low": lambda: os.open(os.path.join(folder, "after"), os.O_CREAT | os.O_WRONLY),
    "deleting": lambda: os.remove(os.path.join(folder, "before")),
    "moving": lambda: os.rename(os.path.join(folder, "before"), os.path.join(folder, "after")),
    "unpickling": lambda: pickle.loads(b"cos\\nsystem\\n."),
    "memory": lambda: bytearray(4 * MEMORY),
    "much": lambda: [open_before.write("x" * 6000), open_before.flush()],
}
told = {}
for name, attempt in tries.items():
    try:
        attempt()
        told[name] = "done"
    except BaseException as error:
        told[name] = type(error).__name__
print(json.dumps(told))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep fewer of the limits")
def test_nothing_is_left_but_reading_and_the_file_that_is_open(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    told = json.loads(done.stdout)
    assert told.pop("memory") == "MemoryError"
    assert told.pop("much") == "OSError"
    assert told.pop("unpickling") in ("Refused", "UnpicklingError")
    assert set(told.values()) == {"Refused"}, told
    assert [path.name for path in tmp_path.iterdir()] == ["before"]
