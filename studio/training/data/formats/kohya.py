"""Folders named ``N_name``, as sd-scripts takes them: pictures that come N times in each epoch.

    img/10_sks dog/a.png
    img/10_sks dog/a.txt    without this file the caption is the folder's name: sks dog
    img/1_dog/b.png

A folder of this name may also be given itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from studio.training.data.formats.base import Format, Reading, picture_names
from studio.training.data.formats.folder import add_picture, write

MAX_REPEATS = 1_000
"""More are a year in a folder's name."""
_NAME = re.compile(r"(\d{1,5})_(.*)")


def repeats_of(folder: str) -> tuple[int, str] | None:
    """(N, name) of a folder called ``N_name``; None for other names and impossible numbers."""
    match = _NAME.fullmatch(folder)
    return (int(match[1]), match[2].strip()) if match and 1 <= int(match[1]) <= MAX_REPEATS else None


def recognises(root: Path) -> bool:
    """Whether ``root``, or a folder in it, has such a name."""
    if not root.is_dir():
        return False
    return repeats_of(root.name) is not None or any(
        entry.is_dir() and repeats_of(entry.name) is not None for entry in root.iterdir()
    )


def read(root: Path) -> Reading:
    """All pictures in folders of such names. Pictures elsewhere are left out, and a note counts them."""
    reading, left_out = Reading(), 0
    folders: dict[str, int] = {}
    own = repeats_of(root.name)
    for name in picture_names(root, reading):
        parts = name.split("/")
        facts = repeats_of(parts[0]) if len(parts) > 1 else None
        facts = facts or own
        if facts is None:
            left_out += 1
            continue
        repeats, word = facts
        folders[parts[0] if facts is not own else root.name] = repeats
        add_picture(reading, root, name, instead=word, repeats=repeats)
    shown = [f"{name} ({repeats}x)" for name, repeats in folders.items()]
    reading.notes.append(f"Repeats by folder: {', '.join(shown[:10])}{' …' if len(shown) > 10 else ''}.")
    if left_out:
        reading.notes.append(f"{left_out} pictures are in no folder with a name like 10_dog and are left out.")
    return reading


FORMAT = Format(
    looks_for="folders with names like 10_dog (each picture comes 10 times in an epoch)",
    recognises=recognises,
    read=read,
    write=write,
)
