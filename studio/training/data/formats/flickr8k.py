"""Flickr8k as it is handed around: five captions a picture.

captions.txt            image,caption
                        1000268201_693b08cb0e.jpg,A child in a pink dress is climbing up a set of stairs
Flickr8k.token.txt      1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress is climbing up a set of stairs
Images/                 (or Flicker8k_Dataset/, as the first edition spells it)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from studio.errors import DatasetError
from studio.training.data.captions import checked_text
from studio.training.data.formats.base import Format, Found, Reading, first_existing, listed_file, read_table
from studio.training.data.pictures import Unusable
from studio.training.data.sources import FileSource

TABLE, TOKENS = "captions.txt", ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
FOLDERS = ("Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset")
HEADINGS = ("image,caption", "image_name,comment", "file_name,caption")


def recognises(root: Path) -> bool:
    """Whether one of the tables is there; ``captions.txt`` by its first line."""
    if not root.is_dir():
        return False
    if first_existing(root, TOKENS) is not None:
        return True
    try:
        with (root / TABLE).open("rb") as stream:
            first = stream.read(100).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return False
    return bool(first) and first[0].replace(" ", "").lower() in HEADINGS


def read(root: Path) -> Reading:
    """Pictures in the order of the table, each with all of its captions."""
    reading = Reading()
    place = next((folder for folder in FOLDERS if (root / folder).is_dir()), "")
    captions: dict[str, list[str]] = {}
    table = first_existing(root, (TABLE, *TOKENS))
    assert table is not None, "the format was recognised by it"
    pairs = _comma_pairs(table) if table.name == TABLE else _token_pairs(table)
    for line, name, text in pairs:
        try:
            caption = " ".join(checked_text(text).split())
        except Unusable as error:
            reading.problem(f"{table.name} line {line}", error)
            continue
        captions.setdefault(name, []).extend([caption] if caption else [])
    for name, texts in captions.items():
        try:
            path = listed_file(root / place, name)
        except Unusable as error:
            reading.problem(f"{table.name}: {name[:100]}", error)
            continue
        reading.add(Found(path.relative_to(root).as_posix(), FileSource(path), tuple(texts)))
    return reading


def _comma_pairs(table: Path) -> Iterator[tuple[int, str, str]]:
    """(line, picture, caption). A caption with commas that is not in quotes is put together again."""
    reader = csv.reader(read_table(table).splitlines())
    try:
        next(reader, None)
        for cells in reader:
            if len(cells) >= 2:
                yield reader.line_num, cells[0].strip(), ",".join(cells[1:])
    except csv.Error as error:
        raise DatasetError(f"{table.name} cannot be read at line {reader.line_num}: {error}.", field="path") from error


def _token_pairs(table: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(read_table(table).splitlines(), 1):
        label, tab, caption = line.partition("\t")
        if tab:
            yield number, label.rpartition("#")[0] or label, caption


FORMAT = Format(
    looks_for="captions.txt (image,caption) or Flickr8k.token.txt, with the pictures in Images/",
    recognises=recognises,
    read=read,
)
