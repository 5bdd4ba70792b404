"""Where the pictures of a data set lie: a file of their own, a cell of a table, a stretch of an array.

A source says a picture's facts without keeping its pixels, and gives the picture when it is asked for.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from studio.training.data.pictures import MAX_BYTES, Facts, Unusable, decode, key_of, measure

REMEMBERED = 200_000
"""Facts that are kept in memory, so that a data set looked at twice is read once."""

T = TypeVar("T")

_known: dict[tuple[object, ...], Facts] = {}
_lock = threading.Lock()


class Source(ABC):
    """One picture, not read yet."""

    @abstractmethod
    def facts(self) -> Facts:
        """Key and size. Raises ``Unusable``."""

    @abstractmethod
    def picture(self, key: str) -> Image.Image:
        """The picture as RGB, upright. Raises ``Unusable``, also when it is not the one with ``key`` any more."""


class EncodedSource(Source):
    """A picture stored as the bytes of a picture file."""

    @abstractmethod
    def data(self) -> bytes:
        """The file. Raises ``Unusable``."""

    @abstractmethod
    def identity(self) -> tuple[object, ...]:
        """What is the same as long as ``data`` is. Raises ``Unusable``."""

    def facts(self) -> Facts:
        """As ``Source.facts``; remembered while the file stays as it is."""
        identity = self.identity()
        found = _known.get(identity)
        if found is None:
            found = measure(self.data())
            with _lock:
                if len(_known) >= REMEMBERED:
                    _known.clear()
                _known[identity] = found
        return found

    def picture(self, key: str) -> Image.Image:
        """As ``Source.picture``."""
        data = self.data()
        if key_of(data) != key:
            raise Unusable("has changed since the data set was read")
        return decode(data)


@dataclass(frozen=True)
class FileSource(EncodedSource):
    """A picture file."""

    path: Path

    def data(self) -> bytes:
        """As ``EncodedSource.data``."""

        def read() -> bytes:
            with self.path.open("rb") as stream:
                return stream.read(MAX_BYTES + 1)

        return _read(read)

    def identity(self) -> tuple[object, ...]:
        """As ``EncodedSource.identity``."""
        facts = _read(self.path.stat)
        return (str(self.path), facts.st_size, facts.st_mtime_ns)


def _read(what: Callable[[], T]) -> T:
    try:
        return what()
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from error
