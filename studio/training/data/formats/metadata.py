"""A table ``metadata.jsonl`` or ``metadata.csv`` beside the pictures, as Hugging Face's ``imagefolder`` takes it.

    metadata.jsonl      {"file_name": "images/fox.png", "text": "a red fox in snow"}
    metadata.csv        file_name,text
                        images/fox.png,a red fox in snow

The caption is in ``text`` or ``caption``; a list of texts in JSON is several captions. The table may also lie in ``train/``. Each row is
a picture of its own: the second row of a file is called ``fox.png#2``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import DatasetError, InvalidRequest
from studio.paths import atomic_write
from studio.training.data.captions import checked_text
from studio.training.data.formats.base import (
    Format,
    Found,
    Reading,
    first_existing,
    listed_file,
    picture_names,
    read_table,
)
from studio.training.data.pictures import Unusable
from studio.training.data.sources import FileSource

TABLES = ("metadata.jsonl", "metadata.csv", "train/metadata.jsonl", "train/metadata.csv")
FILE, COLUMNS = "file_name", ("text", "caption")


@dataclass
class _Row:
    """One record: its text in the file with line end, the line it begins at, and its values.

    Without values it is a heading or an empty line, or, with a ``problem``, damaged.
    """

    raw: str
    line: int
    values: dict[str, Any] | None
    problem: str = ""
    cells: list[str] = field(default_factory=list)
    """Of CSV: what stands in the row, also under titles that come twice or are empty."""
    places: dict[str, int] = field(default_factory=dict)
    """Of CSV: the cell that a title means, which may lie behind the last one."""


def read(root: Path) -> Reading:
    """The pictures that the table names. Raises ``DatasetError`` for a table that cannot be read as a whole."""
    table, reading = _table(root), Reading()
    rows = list(_rows(table))
    base, prefix = table.parent, table.parent.relative_to(root).as_posix()
    listed: set[str] = set()
    for row, name, unique in _named(rows):
        try:
            if row.values is None or name is None:
                raise Unusable(row.problem or f"has no {FILE}")
            path = listed_file(base, name)
            captions = _captions(row.values)
        except Unusable as error:
            reading.problem(f"{table.name} line {row.line}" + (f" ({name})" if name else ""), error)
            continue
        listed.add(path.relative_to(root).as_posix())
        reading.add(Found(unique if prefix == "." else f"{prefix}/{unique}", FileSource(path), captions))
    if listed and not any(row.values and _column(row.values) for row in rows):
        known = ", ".join(dict.fromkeys(key for row in rows[:100] for key in row.values or ()))[:200]
        reading.notes.append(f"{table.name} has no column text or caption; it has {known or 'none'}.")
    unlisted = sum(name not in listed for name in picture_names(base, Reading())) if prefix == "." else 0
    if unlisted:
        reading.notes.append(f"{unlisted} pictures are in no row of {table.name} and are left out.")
    return reading


def write(root: Path, found: Found, captions: tuple[str, ...]) -> tuple[str, ...]:
    """Put the captions into the picture's row; every other row stays as it is, byte for byte. Returns those it held."""
    table = _table(root)
    prefix = table.parent.relative_to(root).as_posix()
    wanted = found.name if prefix == "." else found.name.removeprefix(f"{prefix}/")
    mark = table.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(_rows(table))
    row = next(row for row, _, unique in _named(rows) if unique == wanted)
    assert row.values is not None, "a row without values is not listed"
    former = _captions(row.values)
    column = _column(row.values)
    if len(captions) > 1 and (table.suffix == ".csv" or not isinstance(row.values.get(column or ""), list)):
        raise InvalidRequest(f"A row of {table.name} holds one caption, not {len(captions)}.", field="captions")
    if table.suffix == ".csv" and column is None:
        raise InvalidRequest(f"{table.name} has no column text that a caption could stand in.", field="captions")
    text: Any = list(captions) if len(captions) > 1 or len(former) > 1 else "".join(captions)
    row.values[column or COLUMNS[0]] = text
    row.raw = _csv_line(row, row.places[column], text) if column in row.places else _json_line(row)
    atomic_write(table.resolve(), (b"\xef\xbb\xbf" if mark else b"") + "".join(row.raw for row in rows).encode())
    return former


def _table(root: Path) -> Path:
    found = first_existing(root, TABLES)
    if found is None:
        raise DatasetError(f"There is no {' or '.join(TABLES[:2])} in {root}.", field="path")
    return found


def _named(rows: list[_Row]) -> Iterator[tuple[_Row, str | None, str]]:
    """Rows with the file they name, and a name that no other row has."""
    seen: dict[str, int] = {}
    for row in rows:
        if row.values is None and not row.problem:
            continue
        name = row.values.get(FILE) if row.values else None
        if not isinstance(name, str) or not name:
            yield row, None, ""
            continue
        seen[name] = seen.get(name, 0) + 1
        yield row, name, name if seen[name] == 1 else f"{name}#{seen[name]}"


def _column(values: dict[str, Any]) -> str | None:
    return next((column for column in COLUMNS if column in values), None)


def _captions(values: dict[str, Any]) -> tuple[str, ...]:
    held = values.get(_column(values) or "")
    texts = held if isinstance(held, list) else [] if held is None else [held]
    if not all(isinstance(text, str) for text in texts):
        raise Unusable(f"has a caption that is no text: {str(held)[:60]!r}")
    found = (" ".join(checked_text(text).split()) for text in texts)
    return tuple(text for text in found if text)


def _json_line(row: _Row) -> str:
    """The row's values as text, with the line end it had."""
    return json.dumps(row.values, ensure_ascii=False) + _line_end(row)


def _csv_line(row: _Row, place: int, caption: str) -> str:
    """The row's cells as text with `caption` in one of them, with the line end it had."""
    cells = [*row.cells, *[""] * (place + 1 - len(row.cells))]
    cells[place] = caption
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue() + _line_end(row)


def _line_end(row: _Row) -> str:
    return row.raw[len(row.raw.rstrip("\r\n")) :]


def _rows(table: Path) -> Iterator[_Row]:
    text = read_table(table)
    return _csv_rows(table, text) if table.suffix == ".csv" else _json_rows(text)


def _json_rows(text: str) -> Iterator[_Row]:
    for number, raw in enumerate(io.StringIO(text, newline=""), 1):
        if not raw.strip():
            yield _Row(raw, number, None)
            continue
        try:
            values = json.loads(raw)
        except (ValueError, RecursionError) as error:
            yield _Row(raw, number, None, f"is not JSON: {str(error)[:100]}")
            continue
        yield _Row(raw, number, values) if isinstance(values, dict) else _Row(raw, number, None, "is no JSON object")


def _csv_rows(table: Path, text: str) -> Iterator[_Row]:
    titles: list[str] | None = None
    places: dict[str, int] = {}
    for raw, line, cells in _csv_records(table, text):
        if titles is None:
            titles = [cell.strip() for cell in cells]
            places = {title: place for place, title in enumerate(titles)}
            if FILE not in titles:
                raise DatasetError(
                    f"{table.name} has no column {FILE}; it has {', '.join(titles)[:100]}.", field="path"
                )
            yield _Row(raw, line, None)
        elif not cells:
            yield _Row(raw, line, None)
        elif len(cells) > len(titles):
            problem = f"has {len(cells)} columns, the first line {len(titles)}: put text with commas in quotes"
            yield _Row(raw, line, None, problem)
        else:
            values = {title: cells[place] if place < len(cells) else "" for title, place in places.items()}
            yield _Row(raw, line, values, cells=cells, places=places)


def _csv_records(table: Path, text: str) -> Iterator[tuple[str, int, list[str]]]:
    """(text, first line, cells) of each record. Raises ``DatasetError`` naming the line."""
    lines = list(io.StringIO(text, newline=""))
    reader, used = csv.reader(lines, strict=True), 0
    try:
        for cells in reader:
            yield "".join(lines[used : reader.line_num]), used + 1, cells
            used = reader.line_num
    except csv.Error as error:
        raise DatasetError(f"{table.name} cannot be read from line {used + 1} on: {error}.", field="path") from error


def recognises(root: Path) -> bool:
    """Whether there is such a table."""
    return root.is_dir() and first_existing(root, TABLES) is not None


FORMAT = Format(
    looks_for="metadata.jsonl or metadata.csv with the columns file_name and text (or caption)",
    recognises=recognises,
    read=read,
    write=write,
)
