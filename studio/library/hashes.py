"""The short names that AUTOMATIC1111 and Civitai give to files, and a cache of them.

checkpoint, VAE    first 10 hex digits of the file's SHA-256
legacy (2022)      first 8 of the SHA-256 of 64 KiB from offset 1 MiB; read only
embedding          first 12 hex digits of the file's SHA-256
LoRA               first 12 of `sshs_model_hash` from its metadata, else of the SHA-256 of the bytes after the header
diffusers folder   no A1111 hash: 12 digits over all its weight files
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from studio.errors import DamagedFile, StorageError
from studio.library.header import data_start
from studio.paths import atomic_write

CHECKPOINT_DIGITS, LEGACY_DIGITS, LORA_DIGITS, EMBEDDING_DIGITS = 10, 8, 12, 12
LEGACY_OFFSET, LEGACY_LENGTH = 0x100000, 0x10000
_BLOCK = 1 << 20
_FORMAT = 1


@dataclass(frozen=True)
class FileHashes:
    """Hex digests of one file. `body` is that of the bytes after a safetensors header; equal to `sha256` for other files."""

    sha256: str
    body: str


def file_hashes(path: Path, stop: Callable[[], bool] = lambda: False) -> FileHashes | None:
    """Read the whole file once. None when `stop` said so, asked every MiB. Raises `OSError`."""
    try:
        start = data_start(path) if path.suffix.lower() == ".safetensors" else 0
    except DamagedFile:
        start = 0
    whole, body = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as stream:
        head = stream.read(start)
        whole.update(head)
        while block := stream.read(_BLOCK):
            if stop():
                return None
            whole.update(block)
            if start:
                body.update(block)
    return FileHashes(whole.hexdigest(), (body if start else whole).hexdigest())


def legacy_hash(path: Path) -> str:
    """The 8 digits of 2022's versions; the same for all files of at most 1 MiB. Raises `OSError`."""
    with path.open("rb") as stream:
        stream.seek(LEGACY_OFFSET)
        return hashlib.sha256(stream.read(LEGACY_LENGTH)).hexdigest()[:LEGACY_DIGITS]


def lora_short_hash(metadata: dict[str, str], hashes: FileHashes | None) -> str | None:
    """The 12 digits; None while they are not known."""
    full = metadata.get("sshs_model_hash") or (hashes.body if hashes else "")
    return full[:LORA_DIGITS] or None


def folder_id(parts: Iterable[tuple[str, str]]) -> str:
    """12 digits over (relative path, SHA-256) of a folder's weight files, in any order."""
    lines = sorted(f"{name}:{digest}" for name, digest in parts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:LORA_DIGITS]


class HashCache:
    """Hashes by path, valid while size and modification time stay. Thread-safe; kept in one JSON file.

    The file can be deleted at any time. One that is damaged, or of another version, counts as empty.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._entries = self._load()

    def get(self, path: Path, size: int, mtime_ns: int) -> FileHashes | None:
        """What is known about the file as it is now."""
        with self._lock:
            key, hashes = self._entries.get(str(path), (None, None))
        return hashes if key == (size, mtime_ns) else None

    def put(self, path: Path, size: int, mtime_ns: int, hashes: FileHashes) -> None:
        """Remember, and write the file. Where that is not possible the hashes last as long as the process."""
        with self._lock:
            # Another process may have hashed something too: keep what it wrote.
            self._entries = {**self._load(), **self._entries, str(path): ((size, mtime_ns), hashes)}
            files = {
                name: {"size": key[0], "mtime_ns": key[1], **asdict(found)}
                for name, (key, found) in self._entries.items()
            }
            data = json.dumps({"version": _FORMAT, "files": files}, indent=1)
            with suppress(StorageError):
                atomic_write(self._file, data.encode())

    def _load(self) -> dict[str, tuple[tuple[int, int], FileHashes]]:
        try:
            stored = json.loads(self._file.read_bytes())
            if stored["version"] != _FORMAT:
                return {}
            return {
                str(name): ((int(row["size"]), int(row["mtime_ns"])), FileHashes(str(row["sha256"]), str(row["body"])))
                for name, row in stored["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
