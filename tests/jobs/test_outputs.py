"""What memory holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from studio.errors import NotFound
from studio.infotext import encode_png
from studio.jobs import JobStore
from studio.jobs.outputs import PictureStore, Shelf
from studio.paths import Paths
from studio.schema.events import ImageReady
from studio.schema.request import GenerationRequest, RunOptions
from tests.jobs.conftest import prepare


def picture(seed: int = 7, png: bytes = b"\x89PNG") -> ImageReady:
    return ImageReady(index=0, seed=seed, width=8, height=8, infotext="x", png=png)


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
    unsaved = prepare(GenerationRequest(seed=7), RunOptions(save=False))
    first = pictures.keep(job_id, picture(png=b"x" * 8), unsaved, 0.0).image_id or 0
    assert pictures.data(first) == b"x" * 8
    pictures.keep(job_id, picture(png=b"x" * 8), unsaved, 0.0)
    with pytest.raises(NotFound, match="no longer in memory"):
        pictures.data(first)
    assert len(pictures.in_memory(job_id)) == 1
    saved = pictures.keep(job_id, picture(), prepare(GenerationRequest(seed=7), RunOptions()), 0.0)
    Path(saved.path or "").unlink()
    with pytest.raises(NotFound, match="is gone"):
        pictures.data(saved.image_id or 0)
    store.close()


def test_a_picture_that_stays_a_png_is_kept_with_a_warning(paths: Paths) -> None:
    store = JobStore(paths.database)
    pictures = PictureStore(store, paths)
    job_id = store.add_job(GenerationRequest(), RunOptions(), "", 0.0)
    text = "a" * 40_000
    png = encode_png(Image.new("RGB", (16, 8), "red"), text)
    finished = ImageReady(index=0, seed=7, width=16, height=8, infotext=text, png=png)
    kept = pictures.keep(job_id, finished, prepare(GenerationRequest(seed=7), RunOptions(file_format="jpg")), 0.0)
    assert (kept.path or "").endswith(".png")
    assert "instead of JPEG" in (kept.warning or "")
    assert "memory" not in (kept.warning or "")
    assert pictures.data(kept.image_id or 0) == png
    store.close()
