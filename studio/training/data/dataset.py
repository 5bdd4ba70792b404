"""``read_dataset``: settings -> pictures and captions, whatever way they are stored. Needs no torch.

Nothing is decoded to stay: an ``Item`` knows where its picture lies, and reads it when it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from PIL import Image

from studio.errors import DatasetError, NotFound, TrainingError
from studio.paths import REPOSITORY
from studio.schema.training_data import AUTO, DatasetSettings
from studio.training.data.captions import checked_edit, words_of
from studio.training.data.formats import FORMATS
from studio.training.data.formats.base import Format, Found, Reading
from studio.training.data.overlay import Overlay
from studio.training.data.pictures import Facts, Unusable
from studio.training.data.sources import Source

PLAIN = "folder"
"""The format that any folder with pictures has, if no other knows it."""
DEPTH = 4
"""How many folders that hold nothing but one folder are gone through."""

Progress = Callable[[int, int], None]
"""Told (done, all) now and then."""


@dataclass(frozen=True)
class Item:
    """One picture with its captions."""

    key: str
    """SHA-256 of the picture file's bytes, 64 hex: names the picture in caches."""
    name: str
    """Path relative to the data set, with ``/``; in tables ``FILE row N``."""
    captions: tuple[str, ...]
    """At least one; ``""`` where there is none."""
    repeats: int
    """How often it comes in one epoch."""
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    source: Source = field(repr=False, compare=False)

    def picture(self) -> Image.Image:
        """The picture: RGB, turned upright, what is transparent over white. Raises ``TrainingError`` naming the file."""
        try:
            return self.source.picture(self.key)
        except Unusable as error:
            raise TrainingError(f"{self.name} {error}.") from error


@dataclass(frozen=True)
class Dataset:
    """Pictures in a fixed order."""

    items: tuple[Item, ...]
    problems: tuple[str, ...]
    """One sentence per file that cannot be used, naming it."""
    digest: str
    """64 hex digits over keys, captions and repeats."""
    notes: tuple[str, ...] = ()
    """What was assumed while reading."""
    format: str = PLAIN
    root: Path = Path()
    """The folder (or file) that the names are relative to."""


@dataclass(frozen=True)
class Place:
    """Where a data set lies and how it is stored."""

    root: Path
    name: str
    format: Format

    @property
    def folder(self) -> Path:
        """The folder for files of our own."""
        return self.root if self.root.is_dir() else self.root.parent

    def read(self) -> tuple[Reading, Overlay | None]:
        """What the format lists, and the edited captions where they are kept apart."""
        return self.format.read(self.root), None if self.format.write else Overlay(self.folder)


def read_dataset(settings: DatasetSettings, progress: Progress = lambda done, total: None) -> Dataset:
    """Read the data set. Raises ``TrainingError`` when nothing is usable, saying what was looked for, ``UnknownName`` for a format
    that there is not.
    """
    place = locate(settings)
    if settings.caption_source == "file_name" and not place.format.named:
        raise DatasetError(
            f"Pictures of a {place.name} data set have no file names to take captions from.", field="caption_source"
        )
    reading, overlay = place.read()
    items: list[Item] = []
    for number, found in enumerate(reading.found):
        try:
            facts = found.source.facts()
        except Unusable as error:
            reading.problem(found.name, error)
        else:
            items.append(_item(found, facts, settings, overlay))
        progress(number + 1, len(reading.found))
    if not items:
        raise _nothing(place, reading)
    if overlay:
        reading.notes.append(f"Captions edited here are in {place.folder / 'captions.json'}.")
    digest = _digest(items)
    return Dataset(tuple(items), tuple(reading.problems), digest, tuple(reading.notes), place.name, place.root)


def edit_captions(settings: DatasetSettings, name: str, captions: Sequence[str]) -> tuple[str, ...]:
    """Write the captions of one picture to where its data set keeps them, and return those it had: writing them back undoes it.

    ``captions`` may be empty. Raises ``NotFound`` for a picture that is not there, ``InvalidRequest`` for captions that cannot be
    stored, ``StorageError``, and as ``read_dataset``; nothing has then changed.
    """
    wanted = checked_edit(captions)
    place = locate(settings)
    reading, overlay = place.read()
    found = next((found for found in reading.found if found.name == name), None)
    if found is None:
        raise NotFound(f"There is no usable picture {name[:200]!r} in {place.root}.", field="name")
    try:
        if place.format.write is not None:
            return place.format.write(place.root, found, wanted)
        assert overlay is not None, "a format without a place for edits has an overlay"
        return overlay.edit(name, found.source.facts().key, found.captions, wanted)
    except Unusable as error:
        raise DatasetError(f"{name} {error}.", field="name") from error


def locate(settings: DatasetSettings) -> Place:
    """The data set's folder and format. A folder that holds nothing but one folder is gone into.

    A path that is not absolute counts from the repository. Raises ``DatasetError`` saying what was looked for, ``UnknownName`` for the
    name of a format.
    """
    if not settings.path:
        raise DatasetError("No data set is named: path is empty.", field="path")
    try:
        path = (REPOSITORY / settings.path).resolve()
        there = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"path = {settings.path[:200]!r} is no path: {error}.", field="path") from error
    if not there:
        raise DatasetError(f"There is no data set {str(path)!r}.", field="path")
    if path.is_file() and path.suffix.lower() == ".zip":
        message = f"{path.name} is packed: `python launch.py dataset FILE.zip` unpacks it, as does an upload."
        raise DatasetError(message, field="path")
    names = [name for name in FORMATS.names() if name != PLAIN] if settings.format == AUTO else [settings.format]
    for root in _ways_down(path):
        for name in names:
            if (chosen := FORMATS.get(name, field="format")).recognises(root):
                return Place(root, name, chosen)
    deepest = list(_ways_down(path))[-1]
    if settings.format == AUTO and FORMATS.get(PLAIN).recognises(deepest):
        return Place(deepest, PLAIN, FORMATS.get(PLAIN))
    looked_for = "; ".join(
        FORMATS.get(name).looks_for for name in ([*names, PLAIN] if settings.format == AUTO else names)
    )
    raise DatasetError(f"{path} holds no data set. Looked for: {looked_for}.", field="path")


def _ways_down(path: Path) -> list[Path]:
    """``path``, and the folders below it as long as each holds one folder and nothing else."""
    ways = [path]
    while len(ways) <= DEPTH and path.is_dir():
        try:
            inside = [entry for entry in path.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", field="path") from error
        if len(inside) != 1 or not inside[0].is_dir():
            break
        path = inside[0]
        ways.append(path)
    return ways


def _item(found: Found, facts: Facts, settings: DatasetSettings, overlay: Overlay | None) -> Item:
    instead = found.instead if settings.caption_source == "stored" else ""
    captions = found.captions if overlay is None else overlay.captions(found.name, facts.key, found.captions)
    if settings.caption_source == "file_name":
        captions = (words_of(found.name),)
    elif settings.caption_source == "none":
        captions = ()
    return Item(
        facts.key, found.name, captions or (instead,), found.repeats * settings.repeats, facts.size, found.source
    )


def _nothing(place: Place, reading: Reading) -> DatasetError:
    if not reading.problems:
        return DatasetError(f"{place.root} holds no pictures. Looked for: {place.format.looks_for}.", field="path")
    shown = " ".join(reading.problems[:3]) + (" …" if len(reading.problems) > 3 else "")
    count = len(reading.problems)
    return DatasetError(f"None of the {count} pictures in {place.root} can be used. {shown}", field="path")


def _digest(items: Sequence[Item]) -> str:
    total = sha256()
    for item in items:
        total.update(json.dumps([item.key, item.captions, item.repeats]).encode())
    return total.hexdigest()
