"""Locks between processes by a file. The operating system drops such a lock when its process ends, however it ends."""

from __future__ import annotations

import errno
import sys
from typing import IO

BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, getattr(errno, "EDEADLOCK", errno.EAGAIN))
"""Error numbers that mean: another process holds the lock."""

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # lock a byte behind the text, so that others can read who holds it

    def lock(stream: IO[str], *, wait: bool) -> None:
        """Lock the open file for as long as it stays open. Raises `OSError`, with a number in `BUSY` when somebody has it and `wait` is off."""
        stream.seek(_FAR)
        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock(stream: IO[str], *, wait: bool) -> None:
        """Lock the open file for as long as it stays open. Raises `OSError`, with a number in `BUSY` when somebody has it and `wait` is off."""
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
