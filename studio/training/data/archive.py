"""ZIP files of data sets from anywhere, unpacked into a folder of their own.

A ZIP may be hostile: it may unpack to a thousand times its size, name files outside of the folder, or hold links. Everything is judged
by its directory before the first byte is written, and counted again while it is written. Only kinds of files that data sets are made of
come in; the rest is left out, and told. The folder appears when it is complete, or not at all.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio.errors import DatasetError, NotAllowed, StorageError
from studio.paths import is_reserved, safe_join, storage_error
from studio.training.data.pictures import SUFFIXES

MAX_ENTRIES = 200_000
MAX_TOTAL = 16 << 30
"""Bytes of all files, unpacked."""
MAX_FILE = 8 << 30
"""Bytes of one file, unpacked: a parquet shard."""
MAX_RATIO, ALWAYS_FINE = 100, 64 << 20
"""Unpacked bytes for each packed one, and bytes up to which nobody asks."""
SPARE = 512 << 20
"""Bytes that stay free on the disk."""
KINDS = (*SUFFIXES, ".txt", ".caption", ".csv", ".json", ".jsonl", ".parquet", ".gz", "idx3-ubyte", "idx1-ubyte")
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED, UTF_8 = 0x1, 0x800
"""Flags of an entry."""
BLOCK = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Unpacked:
    """The new folder, and the files that stayed in the ZIP as no data set is made of their kind. Hidden ones do not count."""

    folder: Path
    left_out: tuple[str, ...]


def unpack(archive: Path, folder: Path, name: str, progress: Progress = lambda done, total: None) -> Unpacked:
    """Unpack ``archive`` into a new folder in ``folder``, called ``name`` (or ``name-2`` ... when that is taken).

    Raises ``DatasetError`` for what is no sound ZIP of a data set or too large, ``NotAllowed`` for names that lead outside, links and
    the like, ``StorageError`` when the disk does not hold it. Nothing is left behind then.
    """
    title = f"{folder_name(name)}.zip"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        with zipfile.ZipFile(archive) as pack:
            entries, left_out = _checked(pack, title, archive.stat().st_size)
            total = sum(entry.file_size for entry in entries)
            _check_space(folder, total)
            done = 0
            for entry in entries:
                done += _write(pack, entry, safe_join(place, entry.filename), MAX_TOTAL - done)
                progress(done, total)
        place.chmod(0o755)
        return Unpacked(_named(place, folder, name), left_out)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{title} is no sound ZIP file: {str(error)[:200]}.", field="path") from error
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def folder_name(text: str) -> str:
    """``text`` as the name of a folder: letters, digits, space, ``.``, ``_`` and ``-``, at most 60 characters; never empty."""
    name = re.sub(r"[^\w .-]+", "_", text, flags=re.ASCII).strip(" ._-")[:60].rstrip(" .")
    return f"_{name}" if is_reserved(name) else name or "dataset"


def _checked(pack: zipfile.ZipFile, title: str, packed: int) -> tuple[list[zipfile.ZipInfo], tuple[str, ...]]:
    """The entries to unpack and the names of files of other kinds, after a look at all of them."""
    entries = pack.infolist()
    if len(entries) > MAX_ENTRIES:
        raise DatasetError(f"{title} holds {len(entries):,} files; {MAX_ENTRIES:,} are allowed.", field="path")
    _check_sizes(entries, title, packed)
    wanted: dict[str, zipfile.ZipInfo] = {}
    others: list[str] = []
    parents: set[str] = set()
    for entry in entries:
        entry.filename = _name(entry)
        _check_entry(entry, title)
        parts = entry.filename.rstrip("/").split("/")
        hidden = any(part.startswith((".", "__MACOSX")) and part != "." for part in parts)
        if entry.is_dir() or hidden:
            continue
        if not parts[-1].lower().endswith(KINDS):
            others.append(entry.filename)
            continue
        _check_name(entry.filename, title)
        folded = entry.filename.casefold()
        if folded in wanted:
            raise DatasetError(f"{title} holds {entry.filename!r} twice.", field="path")
        wanted[folded] = entry
        parents |= {"/".join(folded.split("/")[:depth]) for depth in range(1, len(parts))}
    if both := parents & wanted.keys():
        raise DatasetError(f"{title} holds {min(both)!r} as a file and as a folder.", field="path")
    if not wanted:
        raise DatasetError(f"{title} holds no pictures, tables or captions.", field="path")
    return list(wanted.values()), tuple(others)


def _check_sizes(entries: list[zipfile.ZipInfo], title: str, packed: int) -> None:
    total = sum(entry.file_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    if total > MAX_TOTAL or largest > MAX_FILE:
        allowed = f"{MAX_TOTAL >> 30} GB in all and {MAX_FILE >> 30} GB a file are allowed"
        raise DatasetError(f"{title} unpacks to {total / 2**30:,.1f} GB; {allowed}.", field="path")
    if total > max(ALWAYS_FINE, MAX_RATIO * packed):
        times = total / max(packed, 1)
        message = f"{title} unpacks to {times:,.0f} times its size; {MAX_RATIO} times are allowed."
        raise DatasetError(message, field="path")


def _name(entry: zipfile.ZipInfo) -> str:
    """The name as it stands in the file, before Python's own cleaning.

    Finder and others write UTF-8 without the flag for it, which Python then reads as the encoding of DOS.
    """
    name = entry.orig_filename
    if entry.flag_bits & UTF_8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _check_entry(entry: zipfile.ZipInfo, title: str) -> None:
    """What refuses the whole file, whether or not the entry would come in."""
    name = entry.filename
    mode = entry.external_attr >> 16
    kind = stat.S_IFMT(mode) if entry.create_system == 3 else 0
    if kind and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise NotAllowed(f"{title} holds {name[:100]!r}, which is a link or a device.")
    if "\\" in name or "\0" in name or name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        raise _no_name_inside(name, title)
    if entry.flag_bits & ENCRYPTED:
        raise DatasetError(f"{title} has a password; pack it without one.", field="path")
    if entry.compress_type not in PACKINGS and not entry.is_dir():
        raise DatasetError(f"{title} is packed in a rare way; pack it as a plain ZIP (deflate).", field="path")


def _check_name(name: str, title: str) -> None:
    """Of what comes in: names that some system cannot write. What stays out may be called anything, such as macOS's ``Icon\\r``."""
    if len(name) > 1000:
        raise _no_name_inside(name, title)
    try:
        safe_join(Path(title), name)
    except NotAllowed as error:
        raise _no_name_inside(name, title) from error


def _no_name_inside(name: str, title: str) -> NotAllowed:
    return NotAllowed(f"{title} holds {name[:100]!r}, which is no name of a file inside it.")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise StorageError(
            f"The data set needs {needed / 2**30:.1f} GB, and {folder} has {free / 2**30:.1f} GB free "
            f"({SPARE / 2**30:.1f} GB are kept)."
        )


def _write(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one file and return its bytes, which are counted: a directory of a ZIP can lie."""
    written = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with pack.open(entry) as source, target.open("xb") as sink:
        while block := source.read(BLOCK):
            written += len(block)
            if written > min(entry.file_size, left):
                raise DatasetError(f"{entry.filename!r} unpacks to more than the ZIP file says.", field="path")
            sink.write(block)
    return written


def _named(place: Path, folder: Path, name: str) -> Path:
    """Give the finished folder its name; the first of ``name``, ``name-2`` ... that is free."""
    base = folder_name(name)
    for number in range(1, 10_000):
        target = folder / (base if number == 1 else f"{base}-{number}")
        if target.exists():
            continue
        place.rename(target)
        return target
    raise StorageError(f"{folder} holds too many data sets called {base}.")
