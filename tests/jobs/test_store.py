"""The database file: restarts, versions, damage, room on a full disk."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.errors import InvalidRequest, NotFound, SettingsError, StorageError
from studio.jobs import JobStore
from studio.jobs.store import MAX_FORMS, MIGRATIONS
from studio.paths import REPOSITORY, Paths
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, RunOptions

REQUEST, OPTIONS = GenerationRequest(prompt="a fox, 日本語 🦊"), RunOptions(save=False)


def add(store: JobStore) -> int:
    return store.add_job(REQUEST, OPTIONS, "api", 12.5)


def test_rows_come_back_as_they_went_in(paths: Paths) -> None:
    store = JobStore(paths.database)
    job_id = add(store)
    store.update_job(job_id, {"status": "failed", "error": {"code": "engine", "message": "x"}, "step": 3})
    picture = ImageReady(index=1, seed=7, width=64, height=32, infotext="a", png=b"")
    inside, outside = paths.outputs / "txt2img-images" / "d" / "00000-7.png", Path("/elsewhere/x.png")
    store.add_image(job_id, picture, inside, "tiny", 1.0)
    store.add_image(job_id, picture.model_copy(update={"index": 0}), outside, "tiny", 1.0)
    store.close()
    again = JobStore(paths.database)
    job = again.job(job_id)
    assert (job.request, job.options, job.source, job.created) == (REQUEST, OPTIONS, "api", 12.5)
    assert (job.status, job.step, job.error) == ("failed", 3, {"code": "engine", "message": "x"})
    assert [image.path for image in job.images] == [str(outside), str(inside)]
    assert again.image(job.images[1].id) == job.images[1]
    with pytest.raises(NotFound):
        again.image(10**30)
    with pytest.raises(NotFound):
        again.job(0)
    again.close()


def test_a_moved_data_folder_keeps_its_pictures(tmp_path: Path) -> None:
    old = Paths(tmp_path / "old")
    store = JobStore(old.database)
    picture = ImageReady(index=0, seed=7, width=64, height=32, infotext="a")
    store.add_image(add(store), picture, old.outputs / "a.png", "tiny", 1.0)
    store.close()
    old.root.rename(tmp_path / "new")
    store = JobStore(Paths(tmp_path / "new").database)
    assert store.images(5)[0].path == str(tmp_path / "new" / "outputs" / "a.png")
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated"])
def test_a_damaged_file_is_kept_and_a_new_one_begun(paths: Paths, damage: str) -> None:
    store = JobStore(paths.database)
    for _ in range(50):
        add(store)
    store.close()
    data = bytearray(paths.database.read_bytes())
    if damage == "garbage":
        data[:] = b"not a database at all" * 500
    elif damage == "middle":
        data[4096:8192] = os.urandom(4096)
    else:
        del data[5000:]
    paths.database.write_bytes(data)
    store = JobStore(paths.database)
    assert "damaged" in store.notes[0]
    assert "studio.sqlite3.bad-1" in store.notes[0]
    assert paths.database.with_name("studio.sqlite3.bad-1").read_bytes() == bytes(data)
    assert store.jobs(10) == []
    assert add(store) == 1
    store.close()


def test_a_newer_file_is_kept_and_never_overwritten(paths: Paths) -> None:
    store = JobStore(paths.database)
    add(store)
    store.close()
    with sqlite3.connect(paths.database) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    store = JobStore(paths.database)
    assert "newer version" in store.notes[0]
    kept = sqlite3.connect(paths.database.with_name("studio.sqlite3.newer-1"))
    assert kept.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    kept.close()
    store.close()


def test_an_older_file_is_migrated_with_a_copy(paths: Paths) -> None:
    store = JobStore(paths.database)
    job_id = add(store)
    store.close()
    store = JobStore(paths.database, (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN note TEXT",)))
    assert store.job(job_id).request == REQUEST
    assert paths.database.with_name(f"studio.sqlite3.v{len(MIGRATIONS)}-1").exists()
    store.close()


def test_jobs_of_before_grids_have_none(paths: Paths) -> None:
    store = JobStore(paths.database, MIGRATIONS[:1])
    job_id = add(store)
    store.close()
    store = JobStore(paths.database)
    assert store.job(job_id).grid is None
    store.close()


def test_the_path_of_a_grid_moves_with_the_outputs_folder(paths: Paths, tmp_path: Path) -> None:
    store = JobStore(paths.database)
    inside, outside = add(store), add(store)
    store.update_job(inside, {"grid": str(paths.outputs / "txt2img-grids" / "grid-0000.png")})
    store.update_job(outside, {"grid": "/elsewhere/grid-0000.png"})
    store.close()
    moved = tmp_path / "moved"
    paths.outputs.rename(moved)
    store = JobStore(moved / ".studio" / paths.database.name)
    assert store.job(inside).grid == str(moved / "txt2img-grids" / "grid-0000.png")
    assert store.job(outside).grid == "/elsewhere/grid-0000.png"
    store.close()


def test_a_migration_that_breaks_changes_nothing(paths: Paths) -> None:
    store = JobStore(paths.database)
    job_id = add(store)
    store.close()
    with pytest.raises(StorageError):
        JobStore(paths.database, (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN note TEXT", "DROP TABLE no_such_table")))
    store = JobStore(paths.database)
    assert store.notes == []
    assert store.job(job_id).request == REQUEST
    store.close()


def test_a_request_of_another_version_is_shown_as_unreadable(paths: Paths) -> None:
    store = JobStore(paths.database)
    job_id = add(store)
    store.close()
    with sqlite3.connect(paths.database) as connection:
        connection.execute("UPDATE jobs SET request = ?", (json.dumps({"prompt": "x", "hologram": True}),))
    connection.close()
    store = JobStore(paths.database)
    job = store.job(job_id)
    assert job.error is not None
    assert "another version" in job.error["message"]
    with pytest.raises(InvalidRequest):
        store.order(job_id)
    store.close()


def test_forms_are_kept_per_browser_and_bounded(paths: Paths) -> None:
    store = JobStore(paths.database)
    store.save_form("first", {"prompt": "ü", "steps": 3})
    assert store.load_form("first") == {"prompt": "ü", "steps": 3}
    assert store.load_form("other") is None
    for n in range(MAX_FORMS):
        store.save_form(f"b{n}", {})
    assert store.load_form("first") is None
    with pytest.raises(InvalidRequest):
        store.save_form("big", {"prompt": "x" * (1 << 20)})
    with pytest.raises(InvalidRequest):
        store.save_form("nan", {"prompt": float("nan")})
    for name in ("", "../x", "a" * 65, "ü"):
        with pytest.raises(InvalidRequest):
            store.save_form(name, {})
    store.close()


def test_a_second_server_on_the_folder_is_refused(paths: Paths) -> None:
    store = JobStore(paths.database)
    with pytest.raises(SettingsError, match=f"already in use.*process {os.getpid()}"):
        JobStore(paths.database)
    store.close()
    JobStore(paths.database).close()


HOLDER = """
import sys, time
from studio.jobs import JobStore
from pathlib import Path
from studio.schema.request import GenerationRequest, RunOptions
store = JobStore(Path(sys.argv[1]))
job = store.add_job(GenerationRequest(prompt="x"), RunOptions(), "ui", 1.0)
store.update_job(job, {"status": "running"})
store.add_job(GenerationRequest(prompt="y"), RunOptions(), "ui", 1.0)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_server_leaves_its_rows_and_no_lock(paths: Paths) -> None:
    command = [sys.executable, "-c", HOLDER, str(paths.database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(SettingsError, match=str(process.pid)):
            JobStore(paths.database)
        process.kill()
    store = JobStore(paths.database)
    assert store.notes == []
    assert [job.status for job in store.active_jobs()] == ["running", "queued"]
    assert store.interrupt_running({"code": "engine", "message": "stopped"}, time.time()) == [1]
    assert [job.status for job in store.active_jobs()] == ["queued"]
    store.close()


FULL_DISK = """
import json, os, resource, signal, sys
from pathlib import Path
from studio.errors import StorageError
from studio.jobs import JobStore
from studio.schema.request import GenerationRequest, RunOptions
file = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = JobStore(file)
limit = max(os.path.getsize(file), os.path.getsize(f"{file}-wal"))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
stored, message = 0, ""
try:
    for _ in range(3000):
        store.add_job(GenerationRequest(prompt="x" * 2000), RunOptions(), "ui", 1.0)
        stored += 1
except StorageError as error:
    message = error.message
print(json.dumps([stored, len(store.jobs(5000)), message]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_room_for_some_jobs_and_loses_no_row(paths: Paths) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(paths.database)]
    answer = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=True, timeout=60)
    stored, kept, message = json.loads(answer.stdout)
    assert stored >= 200
    assert kept == stored
    assert str(paths.database) in message or "disk is full" in message
    store = JobStore(paths.database)
    assert store.notes == []
    assert len(store.jobs(5000)) == stored
    store.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="outputs"):
        JobStore(Paths(tmp_path).database)
