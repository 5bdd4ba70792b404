"""What the child takes away from itself before it opens a file that it does not trust: memory, time, and nearly all of the system's calls.

This is belt and braces. The boundary is `weights_only=True` in `unpickling.py`, whose reader of pickles knows a short list of harmless names
and calls nothing else. What is here limits the harm of a fault in it, or in the native code below it: an audit hook is told of calls made through
Python only, and a limit of memory stops what grows, not what writes to the wrong place.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

MEMORY = 1 << 30
"""Bytes of address space beside what is taken already and `_TIMES` the file."""
_TIMES = 3
_SECONDS = 120
_BYTES_PER_SECOND = 10_000_000
"""Slower than any processor reads and writes; for the limit of its seconds."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = (
    "socket.", "subprocess.", "pty.", "shutil.", "tempfile.", "ctypes.", "webbrowser.", "urllib.", "ftplib.", "smtplib.", "sqlite3.",
    "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "os.kill", "os.putenv", "os.unsetenv", "os.chdir",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
    "os.setxattr", "pickle.find_class", "resource.setrlimit", "signal.pthread_kill",
)  # fmt: skip


class Refused(Exception):
    """A call that nothing in a conversion has a reason for."""


def limit(size: int, written: int) -> None:
    """Bound this process for reading a file of `size` bytes and writing at most `written`, where the platform can.

    Address space, processor time and file size are the operating system's limits (not on Windows; macOS does not keep the first);
    no core dump is left, which would hold the file's content.
    """
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    wanted = {"CORE": 0, "CPU": seconds, "FSIZE": written}
    taken = _address_space()
    if taken:
        wanted["AS"] = taken + _TIMES * size + MEMORY
    for name, value in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def refuse_calls() -> None:
    """From now on, and for good: no network, no other program, no file opened for writing, nothing moved or deleted. Files that are open stay usable."""
    sys.addaudithook(_judge)


def _judge(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise Refused(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
        raise Refused(f"writing to {str(arguments[0])[:80]}")


def _address_space() -> int:
    """Bytes this process has mapped; 0 where that cannot be told."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
