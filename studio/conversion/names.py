"""Which `module.name` the pickles of a file mention, for a message about why it is refused. They are taken apart, never run."""

from __future__ import annotations

import contextlib
import pickletools
import tarfile
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from torch._utils import IMPORT_MAPPING, NAME_MAPPING

Form = Literal["zip", "plain", "tar"]
_PARTS = 5
"""A file of torch before 1.6 is so many pickles, one behind the other, and then the weights."""


def names_in(path: Path, form: Form) -> list[str]:
    """Each name once, in the file's order, as Python 3 calls it. A pickle that is damaged ends the search: what was found before is given."""
    found: dict[str, None] = {}
    with contextlib.suppress(
        OSError, ValueError, KeyError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile
    ):
        for name in _all(path, form):
            found[name] = None
    return list(found)


def _all(path: Path, form: Form) -> Iterator[str]:
    if form == "zip":
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                if entry.endswith(".pkl"):
                    with archive.open(entry) as stream:
                        yield from _names(stream)
    elif form == "tar":
        with tarfile.open(path) as archive_tar:
            for member in ("pickle", "storages", "tensors"):
                part = archive_tar.extractfile(member)
                if part is not None:
                    yield from _names(part)
    else:
        with path.open("rb") as stream:
            for _ in range(_PARTS):
                yield from _names(stream)


def _names(stream: IO[bytes]) -> Iterator[str]:
    """Of one pickle, up to its end. STACK_GLOBAL takes the two texts before it, which may come out of the pickle's memo."""
    texts: deque[str] = deque(["?", "?"], maxlen=2)
    memo: dict[int, str] = {}
    memoized, latest = 0, "?"
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        kind = opcode.name
        if kind in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            yield _named(module, name)
        elif kind == "STACK_GLOBAL":
            yield _named(*texts)
        elif kind == "MEMOIZE":
            memo[memoized] = latest
            memoized += 1
        elif "PUT" in kind:
            memo[int(argument)] = latest
        else:
            latest = memo.get(int(argument), "?") if "GET" in kind else argument if isinstance(argument, str) else "?"
            if latest != "?":
                texts.append(latest)


def _named(module: str, name: str) -> str:
    """Names of Python 2 are told as those that Python 3 would look up."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
