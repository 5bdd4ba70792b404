"""`WildcardFolder`: the text files that `__name__` draws lines from, `wildcards/**/name.txt` in the data folder.

One option a line, `3::option` with a weight; `#` begins a comment and empty lines do not count. `name` is the path below the
folder without its ending, `animals/cats`; `cats` alone is found in every folder; `*` stands for any characters.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from studio.errors import DamagedFile, InvalidRequest, UnknownName
from studio.paths import safe_join

ENDING = ".txt"
MAX_FILE = 16 * 1024 * 1024


class WildcardFolder:
    """The wildcards of a data folder. Files are read when they are asked for. Nothing outside of the folder is ever read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """All wildcards in the order of their names, `/` between folders. Hidden files are left out."""
        found: list[str] = []
        for place, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            here = Path(place).relative_to(self._folder)
            texts = (name for name in files if name.endswith(ENDING) and not name.startswith("."))
            found += [(here / name).as_posix().removesuffix(ENDING) for name in texts]
        return sorted(found)

    def lines(self, name: str) -> list[str]:
        """The options of wildcard `name`, at least one; those of all that fit if it is a pattern.

        Raises `UnknownName` with near matches, `NotAllowed` for a name that leads out of the folder, `InvalidRequest` for a
        file without options, `DamagedFile` naming file and line.
        """
        files = self._files(name)
        lines = [line for file in files for line in self._read(file)]
        if not lines:
            shown = ", ".join(files[:3])
            raise InvalidRequest(f"The wildcard {shown!r} has no options: write one a line.", field="prompt")
        return lines

    def _files(self, name: str) -> list[str]:
        if "*" in name:
            found = [known for known in self.names() if fnmatchcase(known, name)]
        elif safe_join(self._folder, name + ENDING).is_file():
            return [name]
        else:
            found = [known for known in self.names() if known.endswith(f"/{name}")]
        if not found:
            unknown = UnknownName.of("wildcard", name, self.names(), field="prompt")
            hint = f"Wildcards are text files in {self._folder.name}/; write \\__{name}__ for plain text."
            raise UnknownName(f"{unknown.message} {hint}", field="prompt", choices=unknown.choices)
        return found

    def _read(self, name: str) -> list[str]:
        path = safe_join(self._folder, name + ENDING)
        shown = f"{self._folder.name}/{name}{ENDING}"
        try:
            data = path.read_bytes() if path.stat().st_size <= MAX_FILE else None
        except OSError as error:
            raise DamagedFile(f"{shown} cannot be read: {error.strerror or error}.", field="prompt") from None
        if data is None:
            raise DamagedFile(f"{shown} is larger than {MAX_FILE >> 20} MB, which no wildcard is.", field="prompt")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DamagedFile(f"{shown} cannot be read, line {line}: it is not UTF-8 text.", field="prompt") from None
        if "\0" in text:
            raise DamagedFile(f"{shown} cannot be read: it holds a NUL character.", field="prompt")
        options = (line.partition("#")[0].strip() for line in text.splitlines())
        return [option for option in options if option]
