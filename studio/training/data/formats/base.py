"""What a format says of a folder, and what all formats need to look into one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from studio.errors import DatasetError
from studio.training.data.pictures import SUFFIXES, Unusable
from studio.training.data.sources import Source

MAX_FILES = 500_000
"""Files that are looked at below one folder, and pictures of one data set."""
MAX_TABLE = 256 << 20
"""Bytes of a table of captions."""


@dataclass(frozen=True)
class Found:
    """A picture that a format lists: ``name`` is unique, ``captions`` are the stored ones, if any, ``repeats`` is at least 1.

    ``instead`` is the caption where none is stored.
    """

    name: str
    source: Source
    captions: tuple[str, ...] = ()
    repeats: int = 1
    instead: str = ""


@dataclass
class Reading:
    """What a format found: pictures, a sentence for each file that cannot be used, and what was assumed."""

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, name: str, reason: object) -> None:
        """Take down that the file ``name`` cannot be used."""
        self.problems.append(f"{name} {reason}.")

    def add(self, found: Found) -> None:
        """One more picture. Raises ``DatasetError`` when there are too many."""
        if len(self.found) >= MAX_FILES:
            raise DatasetError(f"The data set has more than {MAX_FILES:,} pictures, which are too many.", field="path")
        self.found.append(found)


Writer = Callable[[Path, Found, tuple[str, ...]], tuple[str, ...]]


@dataclass(frozen=True)
class Format:
    """One way to store a data set.

    ``recognises`` looks at names (and first lines) only. ``write(root, found, captions)`` puts checked captions in the place of the
    stored ones, which it returns; without it edits go into ``captions.json`` beside the data (``overlay.py``).
    ``named`` tells whether pictures have file names that could be read as captions.
    """

    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Reading]
    write: Writer | None = None
    named: bool = True


def walk(root: Path) -> Iterator[str]:
    """Paths of the files below ``root``, relative, with ``/``, in order; hidden ones and links to folders are left out.

    Raises ``DatasetError`` when there are more than ``MAX_FILES``, or ``root`` cannot be read.
    """

    def refused(error: OSError) -> None:
        raise DatasetError(f"{error.filename or root} cannot be read: {error.strerror or error}.", field="path")

    seen: list[str] = []
    for place, folders, files in os.walk(root, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        here = Path(place).relative_to(root)
        seen += [(here / name).as_posix() for name in files if not name.startswith(".")]
        if len(seen) > MAX_FILES:
            raise DatasetError(f"{root} holds more than {MAX_FILES:,} files, which are too many.", field="path")
    yield from sorted(seen)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its ending."""
    return name.lower().endswith(SUFFIXES)


def picture_names(root: Path, reading: Reading) -> Iterator[str]:
    """Pictures below ``root``; a name that is no text becomes a problem."""
    for name in walk(root):
        if not is_picture(name):
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            reading.problem(name.encode("utf-8", "backslashreplace").decode(), "has a name that is no UTF-8 text")
            continue
        yield name


def listed_file(root: Path, name: str) -> Path:
    """The file that a table calls ``name``. Raises ``Unusable`` for one that is absent or lies outside of ``root``."""
    plain = PurePosixPath(name)
    outside = plain.is_absolute() or ".." in plain.parts or "\\" in name or ":" in name.split("/")[0]
    if outside or not plain.parts or any(character < " " for character in name):
        raise Unusable("is no name of a file inside the data set")
    path = root.joinpath(*plain.parts)
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot be looked at: {error}") from error
    if not there:
        raise Unusable("is not there")
    return path


def read_table(path: Path) -> str:
    """A table of captions as text, line ends as they are. Raises ``DatasetError`` naming the file."""
    try:
        if path.stat().st_size > MAX_TABLE:
            raise DatasetError(f"{path.name} is larger than {MAX_TABLE >> 20} MB.", field="path")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", field="path") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path.name} is no UTF-8 text (byte {error.start}): save it as UTF-8.", field="path"
        ) from error
    if "\0" in text:
        raise DatasetError(f"{path.name} holds a NUL character, which no text does.", field="path")
    return text


def first_existing(root: Path, names: Iterable[str]) -> Path | None:
    """The first of ``names`` below ``root`` that is a file."""
    return next((root / name for name in names if (root / name).is_file()), None)
