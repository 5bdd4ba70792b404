"""`JobStore`: the rows of jobs, pictures and forms. Only this file knows the tables.

A picture has a row exactly when it has a file; what could not be written lives in memory (`studio.jobs.outputs`).
Paths below the outputs folder are stored relative to it, so it can be moved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Row
from typing import Any

from pydantic import ValidationError

from studio.errors import InvalidRequest, NotFound
from studio.jobs.database import Database, Migration
from studio.jobs.lock import DataLock
from studio.schema.events import ImageReady
from studio.schema.jobs import ACTIVE, ImageRecord, JobRecord
from studio.schema.request import GenerationRequest, RunOptions

MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, status TEXT NOT NULL,
            request TEXT NOT NULL, options TEXT NOT NULL, source TEXT NOT NULL,
            created REAL NOT NULL, started REAL, finished REAL,
            progress REAL NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, error TEXT)""",
        "CREATE INDEX active_jobs ON jobs (id) WHERE status IN ('queued', 'running')",
        """CREATE TABLE images (
            id INTEGER PRIMARY KEY AUTOINCREMENT, job_id INTEGER NOT NULL REFERENCES jobs (id), place INTEGER NOT NULL,
            path TEXT NOT NULL, seed INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
            infotext TEXT NOT NULL, model TEXT NOT NULL, created REAL NOT NULL)""",
        "CREATE INDEX images_of_job ON images (job_id)",
        "CREATE TABLE forms (turn INTEGER PRIMARY KEY AUTOINCREMENT, browser TEXT NOT NULL UNIQUE, form TEXT NOT NULL)",
    ),
    ("ALTER TABLE jobs ADD COLUMN grid TEXT",),
)
MAX_FORM = 1 << 19
"""Bytes of JSON one browser's form may have."""
MAX_FORMS = 100
"""Browsers remembered; the one that has been quiet longest is forgotten first."""

_BROWSER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COLUMNS = frozenset({"status", "started", "finished", "progress", "step", "steps", "error", "grid"})


class JobStore:
    """Rows on disk. Every method is one transaction, callable from any thread, and raises `StorageError`."""

    def __init__(self, file: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Open `file` (`Paths.database`) and hold its folder against a second server.

        Raises `SettingsError` when another server holds it, `StorageError` when it cannot be written.
        """
        self._base = file.parent.parent
        self._holding = DataLock(file.parent)
        self._holding.acquire()
        try:
            self._database = Database(file, migrations)
        except BaseException:
            self._holding.release()
            raise

    @property
    def notes(self) -> list[str]:
        """What the user should know about the file: it was damaged, or is from another version."""
        return self._database.notes

    def close(self) -> None:
        """Let the file and its folder go. Idempotent."""
        self._database.close()
        self._holding.release()

    # Jobs

    def add_job(self, request: GenerationRequest, options: RunOptions, source: str, created: float) -> int:
        """Store a waiting job; its id is larger than any before."""
        values = ("generate", "queued", request.model_dump_json(), options.model_dump_json(), source, created)
        columns = "kind, status, request, options, source, created"
        with self._database.write() as connection:
            cursor = connection.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
            return int(cursor.lastrowid or 0)

    def update_job(self, job_id: int, changes: Mapping[str, Any]) -> None:
        """Set columns of one row: status, started, finished, progress, step, steps, error (a dict), grid (a path)."""
        unknown = changes.keys() - _COLUMNS
        if unknown:
            raise ValueError(f"not columns of a job: {sorted(unknown)}")
        stored = {**changes, "grid": self._stored_path(Path(changes["grid"]))} if changes.get("grid") else changes
        values = [json.dumps(v) if isinstance(v, dict) else v for v in stored.values()]
        assignments = ", ".join(f"{column} = ?" for column in changes)
        with self._database.write() as connection:
            connection.execute(f"UPDATE jobs SET {assignments} WHERE id = ?", (*values, job_id))

    def interrupt_running(self, error: dict[str, Any], finished: float) -> list[int]:
        """Mark what was running when the last server died. Returns the ids."""
        with self._database.write() as connection:
            rows = connection.execute("SELECT id FROM jobs WHERE status = 'running' ORDER BY id").fetchall()
            connection.execute(
                "UPDATE jobs SET status = 'interrupted', error = ?, finished = ? WHERE status = 'running'",
                (json.dumps(error), finished),
            )
        return [row["id"] for row in rows]

    def job(self, job_id: int) -> JobRecord:
        """One job with its pictures. Raises `NotFound`."""
        records = self._records(self._database.read("SELECT * FROM jobs WHERE id = ?", (_key(job_id),)))
        if not records:
            raise NotFound(f"There is no job {job_id}.")
        return records[0]

    def order(self, job_id: int) -> tuple[GenerationRequest, RunOptions, str]:
        """Request, options and source of a job, to give it again.

        Raises `NotFound`, or `InvalidRequest` when another version stored what this one cannot accept.
        """
        rows = self._database.read("SELECT request, options, source FROM jobs WHERE id = ?", (_key(job_id),))
        if not rows:
            raise NotFound(f"There is no job {job_id}.")
        return _request(rows[0]["request"]), _options(rows[0]["options"]), rows[0]["source"]

    def jobs(self, limit: int, before: int | None = None) -> list[JobRecord]:
        """The newest `limit` jobs older than id `before`, newest first."""
        query = "SELECT * FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?"
        return self._records(self._database.read(query, (_before(before), limit)))

    def active_jobs(self) -> list[JobRecord]:
        """Waiting and running jobs, oldest first."""
        marks = ", ".join(f"'{status}'" for status in ACTIVE)
        return self._records(self._database.read(f"SELECT * FROM jobs WHERE status IN ({marks}) ORDER BY id"))

    # Pictures

    def add_image(self, job_id: int, picture: ImageReady, path: Path, model: str, created: float) -> ImageRecord:
        """Index a picture that lies at `path`."""
        values = (job_id, picture.index, self._stored_path(path), picture.seed, picture.width, picture.height)
        columns = "job_id, place, path, seed, width, height, infotext, model, created"
        with self._database.write() as connection:
            cursor = connection.execute(
                f"INSERT INTO images ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, picture.infotext, model, created),
            )
            image_id = int(cursor.lastrowid or 0)
        return image_record(image_id, job_id, picture, str(path), model, created)

    def image(self, image_id: int) -> ImageRecord:
        """One picture. Raises `NotFound`."""
        rows = self._database.read("SELECT * FROM images WHERE id = ?", (_key(image_id),))
        if not rows:
            raise NotFound(f"There is no picture {image_id}.")
        return self._image(rows[0])

    def images(self, limit: int, before: int | None = None) -> list[ImageRecord]:
        """The newest `limit` pictures older than id `before`, newest first."""
        query = "SELECT * FROM images WHERE id < ? ORDER BY id DESC LIMIT ?"
        return [self._image(row) for row in self._database.read(query, (_before(before), limit))]

    # Forms

    def load_form(self, browser: str) -> dict[str, Any] | None:
        """What `save_form` stored for this browser, or None."""
        rows = self._database.read("SELECT form FROM forms WHERE browser = ?", (_browser(browser),))
        return json.loads(rows[0]["form"]) if rows else None

    def save_form(self, browser: str, form: Mapping[str, Any]) -> None:
        """Keep `form` (JSON values) for this browser.

        Raises `InvalidRequest` for an id that is not 1 to 64 letters, digits, `-` and `_`, or a form above 512 kB.
        """
        name = _browser(browser)
        try:
            text = json.dumps(form, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"The form holds something that is not JSON: {error}.", field="form") from None
        if len(text) > MAX_FORM:
            raise InvalidRequest(f"The form has {len(text)} bytes; {MAX_FORM} are allowed.", field="form")
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO forms (browser, form) VALUES (?, ?)", (name, text))
            connection.execute(
                "DELETE FROM forms WHERE turn NOT IN (SELECT turn FROM forms ORDER BY turn DESC LIMIT ?)", (MAX_FORMS,)
            )

    # Rows to records

    def _records(self, rows: list[Row]) -> list[JobRecord]:
        images = self._images_of(row["id"] for row in rows)
        return [self._job(row, tuple(images.get(row["id"], ()))) for row in rows]

    def _job(self, row: Row, images: tuple[ImageRecord, ...]) -> JobRecord:
        error = json.loads(row["error"]) if row["error"] else None
        try:
            request = _request(row["request"])
        except InvalidRequest as unreadable:
            request, error = GenerationRequest(), unreadable.to_dict()
        names = ("id", "kind", "status", "source", "created", "started", "finished", "progress", "step", "steps")
        fields = {name: row[name] for name in names}
        grid = str(self._base / row["grid"]) if row["grid"] else None
        options = _options(row["options"])
        return JobRecord(request=request, options=options, error=error, images=images, grid=grid, **fields)

    def _images_of(self, job_ids: Iterable[int]) -> dict[int, list[ImageRecord]]:
        ids = ", ".join(str(int(job_id)) for job_id in job_ids)
        found: dict[int, list[ImageRecord]] = {}
        for row in self._database.read(f"SELECT * FROM images WHERE job_id IN ({ids}) ORDER BY place, id"):
            found.setdefault(row["job_id"], []).append(self._image(row))
        return found

    def _image(self, row: Row) -> ImageRecord:
        fields = {
            name: row[name] for name in ("id", "job_id", "seed", "width", "height", "infotext", "model", "created")
        }
        path = str(self._base / row["path"])
        return ImageRecord(index=row["place"], path=path, url=image_url(row["id"]), **fields)

    def _stored_path(self, path: Path) -> str:
        try:
            return path.relative_to(self._base).as_posix()
        except ValueError:
            return str(path)


def image_url(image_id: int) -> str:
    """Where a picture is served."""
    return f"/studio/v1/images/{image_id}.png"


def image_record(
    image_id: int, job_id: int, picture: ImageReady, path: str | None, model: str, created: float
) -> ImageRecord:
    """The record of a picture that has just been made."""
    return ImageRecord(
        id=image_id, job_id=job_id, index=picture.index, path=path, url=image_url(image_id), seed=picture.seed,
        width=picture.width, height=picture.height, infotext=picture.infotext, model=model, created=created,
    )  # fmt: skip


def _request(text: str) -> GenerationRequest:
    try:
        return GenerationRequest.model_validate_json(text)
    except ValidationError:
        raise InvalidRequest(
            "This job was stored by another version of the program and cannot be read by this one."
        ) from None


def _options(text: str) -> RunOptions:
    try:
        return RunOptions.model_validate_json(text)
    except ValidationError:
        return RunOptions()


def _browser(name: str) -> str:
    if not _BROWSER.fullmatch(name):
        raise InvalidRequest("A browser id is 1 to 64 letters, digits, '-' and '_'.", field="browser")
    return name


_LARGEST = 2**63 - 1  # what an SQLite integer can hold


def _before(before: int | None) -> int:
    return _LARGEST if before is None else _key(before)


def _key(number: int) -> int:
    return max(-_LARGEST, min(number, _LARGEST))
