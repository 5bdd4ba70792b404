"""Combinations that training never sees, so that an evaluation can tell composing from remembering.

Membership is a hash of the two words, thus fixed for ever, independent of the order of the tables, and open to anyone who wants to check it.
The salt was picked so that the examples of the manual ("a red fox on a beach", "a blue star on a yellow background") are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Literal

PairKind = Literal["colour", "background", "style", "partner"]
HELD_OUT_SHARE = 10
"""One combination in this many is held out."""

_SALT = b"sprout2"


def is_held_out(kind: PairKind, first: str, second: str) -> bool:
    """Whether training must not see object ``first`` with ``second``: a colour, a background or time of day, a style or
    another object."""
    if kind == "partner":
        first, second = sorted((first, second))
    digest = blake2b(f"{kind}|{first}|{second}".encode(), digest_size=4, salt=_SALT).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0


def any_held_out(pairs: Iterator[tuple[PairKind, str, str]]) -> bool:
    """Whether one of ``pairs`` is held out."""
    return any(is_held_out(*pair) for pair in pairs)
