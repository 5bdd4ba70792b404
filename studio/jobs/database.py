"""Opening the SQLite file: durable settings, versions, and what happens to a file that cannot be used.

Write-ahead log with `synchronous=FULL`: a row that was committed survives a killed process and a lost power line.
A damaged file, or one of a newer version of the program, is kept under another name and never overwritten.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock

from studio.errors import StorageError
from studio.paths import storage_error

Migration = tuple[str, ...]
"""The statements that bring version n to n + 1; n is the place in the list."""

SPARE = 1 << 20
"""Bytes of room kept inside the file, so that the queue can go on for a while when the disk is full."""


class Database:
    """One connection behind one lock. Usable from any thread."""

    def __init__(self, file: Path, migrations: Sequence[Migration]) -> None:
        """Open or make `file`; `notes` tells the user what was set aside.

        Raises `StorageError` when the folder cannot be written or another program holds the file.
        """
        self.file = file
        self.notes: list[str] = []
        self._lock = RLock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(file.parent, error) from error
        try:
            self._connection = self._open(migrations)
        except sqlite3.Error as error:
            raise _storage(file, error) from error

    def close(self) -> None:
        """Write the log back and let the file go. Idempotent."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the block or not at all. Raises `StorageError`."""
        with self._lock:
            try:
                with _transaction(self._connection):
                    yield self._connection
            except sqlite3.Error as error:
                raise _storage(self.file, error) from error

    def read(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of one query. Raises `StorageError`."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise _storage(self.file, error) from error

    def _open(self, migrations: Sequence[Migration]) -> sqlite3.Connection:
        try:
            connection = _connect(self.file)
            found = _version(connection)
        except sqlite3.OperationalError:
            raise  # locked, full, not writable: nothing is wrong with the contents
        except sqlite3.DatabaseError as error:
            return self._start_over(migrations, "bad", f"was damaged ({error})")
        if found > len(migrations):
            connection.close()
            return self._start_over(migrations, "newer", f"belongs to a newer version of the program ({found})")
        try:
            self._migrate(connection, found, migrations)
        except BaseException:
            connection.close()
            raise
        _keep_spare_room(connection)
        return connection

    def _migrate(self, connection: sqlite3.Connection, found: int, migrations: Sequence[Migration]) -> None:
        """All missing steps in one transaction: a crash in between leaves the old version."""
        if found == len(migrations):
            return
        if found:
            copy = _free_name(self.file, f"v{found}")
            with contextlib.closing(sqlite3.connect(copy)) as target:
                connection.backup(target)
            self.notes.append(
                f"{self.file.name} was brought to the current version; the old one is kept as {copy.name}."
            )
        with _transaction(connection):
            for statements in migrations[found:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(migrations):d}")

    def _start_over(self, migrations: Sequence[Migration], suffix: str, reason: str) -> sqlite3.Connection:
        kept = _free_name(self.file, suffix)
        for tail in ("", "-wal", "-shm"):
            part = Path(f"{self.file}{tail}")
            try:
                part.replace(f"{kept}{tail}")
            except FileNotFoundError:
                pass
            except OSError as error:
                raise storage_error(self.file.parent, error) from error
        self.notes.append(
            f"The queue file {self.file.name} {reason}. It is kept as {kept.name} and a new one was begun; pictures are untouched."
        )
        connection = _connect(self.file)
        self._migrate(connection, 0, migrations)
        _keep_spare_room(connection)
        return connection


def _connect(file: Path) -> sqlite3.Connection:
    """A connection with our settings and a file that passed SQLite's check. Raises sqlite3.DatabaseError when it did not."""
    connection = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        page = int(connection.execute("PRAGMA page_size").fetchone()[0])
        connection.execute(
            f"PRAGMA wal_autocheckpoint = {SPARE // page // 2:d}"
        ).fetchone()  # before the log outgrows its room
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise sqlite3.DatabaseError(str(answer))
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself when the disk was full
            connection.execute("ROLLBACK")
        raise


def _keep_spare_room(connection: sqlite3.Connection) -> None:
    """Make file and log as long as they need to be for a megabyte of rows, by writing it once and freeing it again.

    SQLite reuses the freed pages, and begins the log anew in place, so neither has to grow on a full disk.
    """
    with contextlib.suppress(sqlite3.OperationalError):  # full already: then there is no room to keep
        with _transaction(connection):
            connection.execute("DROP TABLE IF EXISTS spare")
            connection.execute("CREATE TABLE spare (room BLOB)")
            connection.execute("INSERT INTO spare VALUES (zeroblob(?))", (SPARE,))
        with _transaction(connection):
            connection.execute("DROP TABLE spare")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _free_name(file: Path, suffix: str) -> Path:
    """`file.suffix-1`, or the first number that is free."""
    number = 1
    while (candidate := file.with_name(f"{file.name}.{suffix}-{number}")).exists():
        number += 1
    return candidate


def _storage(file: Path, error: sqlite3.Error) -> StorageError:
    if "full" in str(error):
        return StorageError(f"The disk is full: nothing more can be written to {file.parent}.")
    return StorageError(f"The queue file {file} cannot be used: {error}.")
