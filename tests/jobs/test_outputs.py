"""File names, numbers, and what memory holds."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from studio.errors import NotFound
from studio.infotext import encode_png, read_picture
from studio.jobs import JobStore
from studio.jobs.outputs import PictureStore, Shelf, next_number, save_picture
from studio.paths import REPOSITORY, Paths
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, PictureFormat, RunOptions


def picture(seed: int = 7, png: bytes = b"\x89PNG") -> ImageReady:
    return ImageReady(index=0, seed=seed, width=8, height=8, infotext="x", png=png)


@pytest.mark.parametrize(
    "names, number",
    [
        ([], 0),
        (["00000-1.png"], 1),
        (["00003-1.png", "00011-9.jpg", "00004-2.txt"], 12),
        (["99999-1.png"], 100_000),
        (["100000-1.png"], 100_001),
        (["2024-holiday.png", "grid-0003.png", "README.md", "00002.png"], 0),
    ],
)
def test_the_next_number_follows_the_highest(tmp_path: Path, names: list[str], number: int) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert next_number(tmp_path) == number


def test_a_missing_folder_starts_at_zero(tmp_path: Path) -> None:
    assert next_number(tmp_path / "not yet") == 0


def test_numbers_are_unique_with_many_threads_and_processes(tmp_path: Path) -> None:
    paths, options = Paths(tmp_path), RunOptions(output_dir=str(tmp_path / "out"))
    script = (
        "import sys\nfrom pathlib import Path\nfrom studio.jobs.outputs import save_picture\nfrom studio.paths import Paths\n"
        "from studio.schema.events import ImageReady\nfrom studio.schema.request import RunOptions\n"
        "p = ImageReady(index=0, seed=7, width=8, height=8, infotext='', png=b'x')\n"
        "for _ in range(25): save_picture(p, Paths(Path(sys.argv[1])), RunOptions(output_dir=sys.argv[1] + '/out'))\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY) for _ in range(2)]

    def write() -> None:
        for _ in range(10):
            save_picture(picture(), paths, options)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(30) for other in others] == [0, 0]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{n:05d}-7.png" for n in range(90)]


def test_a_folder_that_is_a_file_gives_a_warning_and_keeps_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    saved = save_picture(picture(), Paths(tmp_path), RunOptions(output_dir=str(tmp_path / "file" / "sub")))
    assert saved.path is None
    assert saved.png == b"\x89PNG"
    assert "cannot be written" in (saved.warning or "")


def test_the_shelf_is_bounded_and_keeps_the_newest() -> None:
    shelf: Shelf[int] = Shelf(10)
    assert shelf.put(1, b"x" * 6) == []
    assert shelf.put(2, b"x" * 6) == [1]
    assert shelf.get(1) is None
    assert shelf.put(3, b"x" * 20) == [2]
    assert shelf.get(3) == b"x" * 20
    assert shelf.put(3, b"y") == []
    assert shelf.put(4, b"z" * 9) == []


def test_pictures_that_left_memory_or_disk_say_so(paths: Paths) -> None:
    store = JobStore(paths.database)
    pictures = PictureStore(store, paths, limit=10)
    job_id = store.add_job(GenerationRequest(), RunOptions(), "", 0.0)
    first = pictures.keep(job_id, picture(png=b"x" * 8), "tiny", RunOptions(save=False)).image_id or 0
    assert pictures.data(first) == b"x" * 8
    pictures.keep(job_id, picture(png=b"x" * 8), "tiny", RunOptions(save=False))
    with pytest.raises(NotFound, match="no longer in memory"):
        pictures.data(first)
    assert len(pictures.in_memory(job_id)) == 1
    saved = pictures.keep(job_id, picture(), "tiny", RunOptions())
    Path(saved.path or "").unlink()
    with pytest.raises(NotFound, match="is gone"):
        pictures.data(saved.image_id or 0)
    store.close()


def real(infotext: str = "a cat\nSteps: 1, Seed: 2, CFG scale: 3") -> ImageReady:
    png = encode_png(Image.new("RGB", (16, 8), "red"), infotext)
    return ImageReady(index=0, seed=7, width=16, height=8, infotext=infotext, png=png)


@pytest.mark.parametrize("kind", get_args(PictureFormat))
def test_a_picture_is_saved_in_the_format_asked_for(tmp_path: Path, kind: PictureFormat) -> None:
    options = RunOptions(output_dir=str(tmp_path / "out"), file_format=kind, quality=70)
    saved = save_picture(real(), Paths(tmp_path), options)
    assert saved.path == str(tmp_path / "out" / f"00000-7.{kind}")
    assert read_picture(Path(saved.path).read_bytes()).infotext == real().infotext
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"00000-7.{kind}"]
    assert next_number(tmp_path / "out") == 1


def test_the_text_is_written_beside_the_picture_where_asked_for(tmp_path: Path) -> None:
    options = RunOptions(output_dir=str(tmp_path / "out"), text_file=True)
    saved = save_picture(real("日本語"), Paths(tmp_path), options)
    assert Path(saved.path or "").with_suffix(".txt").read_text("utf-8") == "日本語"
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_picture_that_stays_a_png_is_saved_with_a_warning(paths: Paths) -> None:
    store = JobStore(paths.database)
    pictures = PictureStore(store, paths)
    job_id = store.add_job(GenerationRequest(), RunOptions(), "", 0.0)
    kept = pictures.keep(job_id, real("a" * 40_000), "tiny", RunOptions(file_format="jpg"))
    assert (kept.path or "").endswith(".png")
    assert "instead of JPEG" in (kept.warning or "")
    assert "memory" not in (kept.warning or "")
    assert pictures.data(kept.image_id or 0) == real("a" * 40_000).png
    store.close()
