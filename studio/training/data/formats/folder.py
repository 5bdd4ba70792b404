"""A folder of pictures, sub-folders included, each with its captions in a ``.txt`` or ``.caption`` file beside it.

    fox/001.png
    fox/001.txt         a red fox in snow

A line is a caption; of several one is drawn each time. Other files are left alone.
"""

from __future__ import annotations

from pathlib import Path

from studio.paths import atomic_write, storage_error
from studio.training.data.captions import MAX_FILE, captions_in
from studio.training.data.formats.base import Format, Found, Reading, picture_names
from studio.training.data.pictures import Unusable
from studio.training.data.sources import FileSource

ENDINGS = (".txt", ".caption")


def read(root: Path) -> Reading:
    """All pictures below ``root``."""
    reading = Reading()
    for name in picture_names(root, reading):
        add_picture(reading, root, name)
    return reading


def add_picture(reading: Reading, root: Path, name: str, *, instead: str = "", repeats: int = 1) -> None:
    """List the picture ``name`` with the captions beside it; ``instead`` is its caption when there are none."""
    path = root / name
    try:
        captions = captions_beside(path)
    except Unusable as error:
        reading.problem(name, f"is left out: its caption file {error}")
        return
    reading.add(Found(name, FileSource(path), captions, repeats, instead))


def captions_beside(path: Path) -> tuple[str, ...]:
    """The captions in the file beside a picture; none where there is no file. Raises ``Unusable``."""
    file = caption_file(path)
    if not file.is_file():
        return ()
    try:
        with file.open("rb") as stream:
            return captions_in(stream.read(MAX_FILE + 1))
    except OSError as error:
        raise Unusable(f"cannot be read: {error.strerror or error}") from error


def caption_file(path: Path) -> Path:
    """The file that holds, or would hold, the captions of a picture."""
    return next((file for ending in ENDINGS if (file := path.with_suffix(ending)).is_file()), path.with_suffix(".txt"))


def write(root: Path, found: Found, captions: tuple[str, ...]) -> tuple[str, ...]:
    """Put the captions into the file beside the picture; without any the file goes. Returns those it held."""
    path = root / found.name
    former, file = captions_beside(path), caption_file(path)
    if captions:
        atomic_write(file, ("\n".join(captions) + "\n").encode())
        return former
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(file.parent, error) from error
    return former


FORMAT = Format(
    looks_for="pictures, with .txt or .caption files beside them",
    recognises=lambda root: root.is_dir() and next(picture_names(root, Reading()), None) is not None,
    read=read,
    write=write,
)
