"""Caption text: from files, from names, and as it may be written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from studio.errors import InvalidRequest
from studio.schema.training_data import MAX_CAPTION, MAX_CAPTIONS
from studio.training.data.pictures import Unusable

MAX_FILE = MAX_CAPTION * MAX_CAPTIONS
"""Bytes of a caption file."""

_NUMBERS = re.compile(r"^[\W\d_]+|[\W\d_]+$")


def captions_in(data: bytes) -> tuple[str, ...]:
    """The captions in a text file: a line each, empty lines left out. Raises ``Unusable``."""
    lines = tuple(line for line in lines_in(data) if line)
    if len(lines) > MAX_CAPTIONS:
        raise Unusable(f"has {len(lines)} lines; at most {MAX_CAPTIONS} captions of a picture are read")
    return lines


def lines_in(data: bytes) -> tuple[str, ...]:
    """The lines of a text file, stripped. UTF-8, or UTF-16 with its mark. Raises ``Unusable``."""
    if len(data) > MAX_FILE:
        raise Unusable(f"has more than the {MAX_FILE:,} bytes that are read")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise Unusable(f"is no {name} text (byte {error.start}): save it as UTF-8") from error
    return tuple(checked_text(line) for line in text.splitlines())


def checked_text(text: str) -> str:
    """A caption from a file or table, stripped. Raises ``Unusable`` for text that is none."""
    if len(text) > MAX_CAPTION:
        raise Unusable(f"has a caption of {len(text):,} characters; at most {MAX_CAPTION:,} are read")
    if "\0" in text:
        raise Unusable("has a NUL character in its caption")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable("has half a character (a lone surrogate) in its caption") from error
    return text.strip()


def checked_edit(captions: Sequence[str]) -> tuple[str, ...]:
    """Captions somebody typed, stripped, empty ones left out. Raises ``InvalidRequest`` for what no file can hold."""
    found = tuple(text.strip() for text in captions if text.strip())
    if len(found) > MAX_CAPTIONS:
        raise InvalidRequest(f"{len(found)} captions are too many; {MAX_CAPTIONS} are allowed.", field="captions")
    for text in found:
        try:
            checked_text(text)
        except Unusable as error:
            raise InvalidRequest(f"The picture {error}.", field="captions") from error
        if len(text.splitlines()) > 1:
            raise InvalidRequest(f"A caption is one line; {text[:60]!r} has several.", field="captions")
    return found


def words_of(name: str) -> str:
    """The words in a file's name, without numbering: ``img/0012-red_fox (2).png`` is ``red fox``; a name of numbers only is ""."""
    stem = PurePosixPath(name).name.rsplit(".", 1)[0]
    return " ".join(re.sub(r"[_\-+]+", " ", _NUMBERS.sub("", stem)).split())
