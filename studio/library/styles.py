"""`StyleBook`: styles in AUTOMATIC1111's files, `styles.csv` and `styles*.csv` beside it, read and written in place.

A file has the columns name, prompt and negative_prompt; the very old form calls the second one text. Rows whose name begins with
'#', rows without a name and columns that are not known here are left alone: writing changes the bytes of one row and keeps
all others as they are. A file that cannot be understood is never written.
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import DamagedFile, InvalidRequest, UnknownName
from studio.paths import atomic_write
from studio.prompt.styles import Style

MAX_FILE = 16 * 1024 * 1024
MAX_NAME = 300
BOM = b"\xef\xbb\xbf"
NAME, PROMPT, NEGATIVE, OLD_PROMPT = "name", "prompt", "negative_prompt", "text"
COMMENT = "#"


class StyleBook:
    """The styles of a data folder. Thread-safe. Files are read when they are asked for: they are small, and edited elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def styles(self) -> list[Style]:
        """All styles in the order of the files. Of two with one name the later counts, in the place of the first.

        Raises `DamagedFile` naming file and line.
        """
        found = [style for sheet in self._sheets() for style in sheet.styles()]
        return list({style.name: style for style in found}.values())

    def find(self, name: str) -> Style:
        """The style called `name`. Raises `UnknownName` with near matches, `DamagedFile`."""
        known = {style.name: style for style in self.styles()}
        if name not in known:
            raise UnknownName.of("style", name, known, field="styles")
        return known[name]

    def save(self, style: Style) -> None:
        """Write `style` in the place of the one with its name, or at the end of `styles.csv`.

        Raises `InvalidRequest` for a name that no row can have, `DamagedFile` and `StorageError`; the files are then untouched.
        """
        problem = _name_problem(style.name)
        if problem:
            raise InvalidRequest(f"A style cannot be called {style.name[:80]!r}: {problem}", field=NAME)
        with self._lock:
            sheets = self._sheets()
            holding = [sheet for sheet in sheets if sheet.holds(style.name)]
            sheet = holding[-1] if holding else next((s for s in sheets if s.path == self._main), _Sheet(self._main))
            sheet.put(style)
            sheet.write()

    def delete(self, name: str) -> None:
        """Take the style out of all files. Raises as `find` and `save`; a later file that fails leaves earlier ones changed."""
        with self._lock:
            self.find(name)
            for sheet in self._sheets():
                if sheet.holds(name):
                    sheet.drop(name)
                    sheet.write()

    @property
    def _main(self) -> Path:
        return self._folder / "styles.csv"

    def _sheets(self) -> list[_Sheet]:
        """All files, `styles.csv` first."""
        others = sorted(path for path in self._folder.glob("styles*.csv") if path != self._main and path.is_file())
        return [read_sheet(path) for path in [*([self._main] if self._main.is_file() else []), *others]]


@dataclass
class _Row:
    """One record: its bytes as text with line end, its cells, and the line it begins at, counted from 1."""

    raw: str
    cells: list[str]
    line: int = 0


@dataclass
class _Sheet:
    """One file. The first row with cells holds the names of the columns; a new file has none yet."""

    path: Path
    rows: list[_Row] = field(default_factory=list)
    bom: bool = True

    def styles(self) -> Iterator[Style]:
        """Rows that are styles, in order."""
        places = [self._column(NAME), self._column(PROMPT), self._column(NEGATIVE)]
        for row in self._styled():
            name, prompt, negative = ("" if place is None else _cell(row, place) for place in places)
            yield Style(name, prompt, negative)

    def holds(self, name: str) -> bool:
        """Whether there is a style called `name`."""
        return any(style.name == name for style in self.styles())

    def put(self, style: Style) -> None:
        """Replace the last row with the style's name, or add one."""
        if self.header is None:
            self.rows.append(self._row([NAME, PROMPT, NEGATIVE]))
        values = {NAME: style.name, PROMPT: style.prompt, NEGATIVE: style.negative_prompt}
        places = {self._made_column(column): value for column, value in values.items()}
        same = [row for row in self._styled() if _cell(row, self._made_column(NAME)) == style.name]
        old = same[-1] if same else None
        cells = [*old.cells] if old else []
        cells += [""] * (max(places) + 1 - len(cells))
        for place, value in places.items():
            cells[place] = value
        if old is not None:
            self._replace(old, cells)
            return
        if not self.rows[-1].raw.endswith(("\n", "\r")):
            self.rows[-1].raw += self._line_end
        self.rows.append(self._row(cells))

    def drop(self, name: str) -> None:
        """Take out all rows with this name."""
        place = self._made_column(NAME)
        gone = [row for row in self._styled() if _cell(row, place) == name]
        self.rows = [row for row in self.rows if all(row is not other for other in gone)]

    def write(self) -> None:
        """Put the file in the place of the old one. A link stays a link. Raises `StorageError`."""
        data = "".join(row.raw for row in self.rows).encode()
        atomic_write(self.path.resolve(), (BOM if self.bom else b"") + data)

    @property
    def header(self) -> _Row | None:
        """The row of column names."""
        return next((row for row in self.rows if row.cells), None)

    @property
    def _line_end(self) -> str:
        """As in the first row; what AUTOMATIC1111 writes if there is none."""
        return (
            "\n" if self.rows and self.rows[0].raw.endswith("\n") and not self.rows[0].raw.endswith("\r\n") else "\r\n"
        )

    def _styled(self) -> Iterator[_Row]:
        place = self._column(NAME)
        for row in self.rows:
            if place is not None and row is not self.header and row.cells:
                name = _cell(row, place)
                if name and not name.startswith(COMMENT):
                    yield row

    def _column(self, name: str) -> int | None:
        titles = [cell.strip() for cell in self.header.cells] if self.header else []
        for title in (name, *([OLD_PROMPT] if name == PROMPT else [])):
            if title in titles:
                return titles.index(title)
        return None

    def _made_column(self, name: str) -> int:
        """The place of a column, which is added if need be."""
        place, header = self._column(name), self.header
        if place is None and header is not None:
            self._replace(header, [*header.cells, name])
            return len(header.cells) - 1
        assert place is not None, "a sheet that is written has a header"
        return place

    def _row(self, cells: list[str]) -> _Row:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=self._line_end).writerow(cells)
        return _Row(text.getvalue(), cells)

    def _replace(self, row: _Row, cells: list[str]) -> None:
        last_without_end = not row.raw.endswith(("\n", "\r"))
        raw = self._row(cells).raw
        row.raw, row.cells = (raw.rstrip("\r\n") if last_without_end else raw), cells


def read_sheet(path: Path) -> _Sheet:
    """One file, taken apart. Raises `DamagedFile` naming file and line."""
    text, bom = _text(path)
    lines = list(io.StringIO(text, newline=""))
    rows: list[_Row] = []
    reader, used = csv.reader(lines), 0
    try:
        for cells in reader:
            rows.append(_Row("".join(lines[used : reader.line_num]), cells, used + 1))
            used = reader.line_num
        sheet = _Sheet(path, rows, bom)
        if rows:
            _check_end(sheet)
    except csv.Error as error:
        raise _damaged(path, used + 1, f"{error}.") from None
    _check_columns(sheet)
    return sheet


def _text(path: Path) -> tuple[str, bool]:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE else None
    except OSError as error:
        raise DamagedFile(f"{path.name} cannot be read: {error.strerror or error}.", field="styles") from None
    if data is None:
        raise DamagedFile(
            f"{path.name} is larger than {MAX_FILE >> 20} MB, which no file of styles is.", field="styles"
        )
    bom = data.startswith(BOM)
    data = data.removeprefix(BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, data.count(b"\n", 0, error.start) + 1, "it is not UTF-8 text.") from None
    if "\0" in text:
        raise _damaged(path, text.count("\n", 0, text.index("\0")) + 1, "it holds a NUL character.")
    return text, bom or not data


def _check_end(sheet: _Sheet) -> None:
    """A quote that is never closed swallows all rows after it: that is damage, not a style."""
    last = sheet.rows[-1]
    try:
        list(csv.reader(io.StringIO(last.raw, newline=""), strict=True))
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise _damaged(sheet.path, last.line, "a quote is opened here and never closed.") from None


def _check_columns(sheet: _Sheet) -> None:
    header = sheet.header
    if header is None:
        return
    if NAME not in [cell.strip() for cell in header.cells]:
        raise _damaged(sheet.path, header.line, f"there is no column {NAME!r} among {', '.join(header.cells)[:80]!r}.")
    for row in sheet.rows:
        if any(row.cells[len(header.cells) :]):
            reason = f"it has {len(row.cells)} columns, the first row has {len(header.cells)}. Put text with commas in quotes."
            raise _damaged(sheet.path, row.line, reason)


def _damaged(path: Path, line: int, reason: str) -> DamagedFile:
    return DamagedFile(f"{path.name} cannot be read, line {line}: {reason}", field="styles")


def _cell(row: _Row, place: int) -> str:
    return row.cells[place] if place < len(row.cells) else ""


def _name_problem(name: str) -> str:
    """Why no row can have this name; "" when one can."""
    if not name or name != name.strip():
        return "it must have characters, and no white space at its ends."
    if name.startswith(COMMENT):
        return f"names that begin with {COMMENT!r} mark comments."
    if len(name) > MAX_NAME:
        return f"a name may have {MAX_NAME} characters."
    return "it must be one line." if any(character in name for character in "\r\n\0") else ""
