"""A progress bar on stderr, so that stdout holds nothing but the result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, count: int) -> Iterable[Item]:
    """``items``, of which there are ``count``, one by one, shown as a bar named ``what``."""
    return rich_track(items, what, total=count, console=Console(stderr=True))
