"""`Registry`: a named table of things, filled where they are defined and read where they are used.

Built-ins go through it like anything else, so a new one is one file and one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from studio.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """Names (and aliases) to things; look-up ignores case. `kind` is the word users know it by, for messages."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}
        self._keys: dict[str, str] = {}

    def add(self, name: str, item: T, aliases: tuple[str, ...] = ()) -> T:
        """Register `item`. Raises ValueError when a name or alias is taken."""
        for key in (name, *aliases):
            if self._keys.setdefault(key.casefold(), name) != name:
                raise ValueError(f"{self.kind} {key!r} is registered twice")
        self._items[name] = item
        return item

    def get(self, name: str, *, field: str | None = None) -> T:
        """The item called `name`. Raises `UnknownName` with near matches."""
        key = self._keys.get(name.strip().casefold())
        if key is None:
            raise UnknownName.of(self.kind, name, self._items, field=field)
        return self._items[key]

    def __contains__(self, name: str) -> bool:
        """Whether `get(name)` finds an item."""
        return name.strip().casefold() in self._keys

    def names(self) -> list[str]:
        """Registered names in order of registration, without aliases."""
        return list(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)
