"""The report against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.schema.training_data import DatasetReport, DatasetSettings, SizeCount
from studio.training.data.dataset import read_dataset
from studio.training.data.report import caption_page, count_tokens, describe, expect
from tests.training.data import drawn

LONG = "word " * 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    drawn.save(tmp_path / "a.png", 1, (64, 64)).with_suffix(".txt").write_text("a cat")
    drawn.save(tmp_path / "b.png", 2, (64, 64)).with_suffix(".txt").write_text(LONG)
    drawn.save(tmp_path / "c.png", 3, (200, 100)).with_suffix(".txt").write_text("a cat")
    drawn.save(tmp_path / "d.png", 3, (200, 100))
    (tmp_path / "broken.png").write_bytes(b"x")
    return tmp_path


def report(
    root: Path, epochs: int = 1, batch: int = 1, seconds: float | None = None, **fields: object
) -> DatasetReport:
    settings = DatasetSettings.model_validate({"path": str(root), **fields})
    return describe(read_dataset(settings), settings, epochs=epochs, batch=batch, seconds_per_step=seconds)


def test_everything_is_counted(folder: Path) -> None:
    found = report(folder, resolution=64)
    assert (found.pictures, found.captions, found.format) == (4, 2, "folder")
    assert found.problem_count == 1
    assert found.problems[0].startswith("broken.png ")
    assert found.sizes == (SizeCount(width=64, height=64, count=2), SizeCount(width=200, height=100, count=2))
    assert found.buckets == (SizeCount(width=64, height=64, count=4),)
    assert found.without_caption == ("d.png",)
    assert [same.names for same in found.duplicates] == [("c.png", "d.png")]
    assert found.duplicate_count == 1
    assert (found.tokens.shortest, found.tokens.longest, found.tokens.over_75) == (0, 80, 1)
    assert found.enlarged == 0
    assert DatasetReport.model_validate_json(found.model_dump_json()) == found


def test_buckets_and_pictures_that_are_enlarged(folder: Path) -> None:
    found = report(folder, resolution=128, buckets=True, bucket_step=32)
    assert {(size.width, size.height): size.count for size in found.buckets} == {(128, 128): 2, (160, 96): 2}
    assert found.enlarged == 2


def test_token_lengths_count_the_trigger(folder: Path) -> None:
    assert count_tokens("a cat") == 2
    assert count_tokens("a cat", "sks") == 2 + count_tokens("sks ,")
    assert report(folder, trigger="dog").tokens.shortest == 1


@pytest.mark.parametrize(
    "fields, epochs, batch, steps",
    [
        ({}, 1, 1, 4),
        ({}, 3, 2, 6),
        ({}, 10, 3, 20),
        ({"repeats": 5}, 1, 3, 7),
        ({"buckets": True, "resolution": 128, "bucket_step": 32}, 1, 3, 2),
        ({"buckets": True, "resolution": 128, "bucket_step": 32, "repeats": 5}, 2, 4, 12),
    ],
)
def test_steps(fields: dict[str, object], epochs: int, batch: int, steps: int, folder: Path) -> None:
    found = report(folder, epochs, batch, 0.5, **fields).expectation
    assert found.steps == steps
    assert found.seconds == steps * 0.5
    assert report(folder, epochs, batch, **fields).expectation.seconds is None


def test_memory_of_the_cache(folder: Path) -> None:
    """Three different pictures of 64x64 (two files are the same), three wordings and the empty one of the dropped."""
    embeddings = 77 * 768 * 4
    assert report(folder, resolution=64).expectation.cache_bytes == 3 * 8 * 8 * 4 * 4 + 4 * embeddings
    assert report(folder, resolution=64, flip=True).expectation.cache_bytes == 6 * 8 * 8 * 4 * 4 + 4 * embeddings
    assert report(folder, resolution=64, shuffle=True).expectation.cache_bytes == 3 * 1024 + embeddings


def test_a_page_of_captions(folder: Path) -> None:
    settings = DatasetSettings(path=str(folder))
    dataset = read_dataset(settings)
    page = caption_page(dataset, settings, 1, 2)
    assert (page.total, page.offset) == (4, 1)
    assert [entry.name for entry in page.entries] == ["b.png", "c.png"]
    assert page.entries[0].tokens == 80
    assert caption_page(dataset, settings, 3, 5).entries[0].captions == ()
    assert caption_page(dataset, settings, 4, 5).entries == ()


def test_lists_are_cut_and_counts_are_whole(tmp_path: Path) -> None:
    for number in range(130):
        (tmp_path / f"{number}.png").write_bytes(b"x")
        drawn.save(tmp_path / f"x{number}.png", number, (16, 16))
    found = report(tmp_path)
    assert (len(found.problems), found.problem_count) == (100, 130)
    assert (len(found.without_caption), found.without_caption_count) == (100, 130)


def test_the_recipe_of_1221_pictures(tmp_path: Path) -> None:
    """As many rows as naruto-blip-captions has, in its layout."""
    drawn.parquet(tmp_path, 1221, shards=1, group=100, size=(32, 32))
    settings = DatasetSettings(path=str(tmp_path), resolution=256)
    dataset = read_dataset(settings)
    assert (len(dataset.items), dataset.problems) == (1221, ())
    assert expect(dataset, settings, epochs=1, batch=2).steps == 611
