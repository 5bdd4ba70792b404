"""What is kept of files, until when, and what is said of one that is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from studio.engine.file_cache import FileCache, file_stamp
from studio.errors import NotFound


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    path, read = tmp_path / "a", list[str]()
    path.write_text("one")
    cache: FileCache[str] = FileCache(2)

    def text() -> str:
        return cache.of(file_stamp(path, "file"), lambda: read.append(path.read_text()) or read[-1])

    assert (text(), text(), read) == ("one", "one", ["one"])
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert (text(), read) == ("two", ["one", "two"])


def test_what_was_used_longest_ago_goes_first() -> None:
    cache: FileCache[int] = FileCache(2)
    stamps = [(name, 0, 0) for name in "abc"]
    for number, stamp in enumerate(stamps[:2]):
        cache.of(stamp, lambda number=number: number)
    cache.of(stamps[0], lambda: 9)
    cache.of(stamps[2], lambda: 2)
    assert [cache.of(stamps[0], lambda: 9), len(cache)] == [0, 2]
    assert cache.of(stamps[1], lambda: 9) == 9, "it had to go"


def test_what_fails_is_not_kept() -> None:
    cache: FileCache[int] = FileCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.of(("a", 0, 0), lambda: 1 // 0)
    assert len(cache) == 0


def test_one_that_is_gone_is_called_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"^The embedding 'wash' is not there any more.$") as caught:
        file_stamp(tmp_path / "wash", "embedding 'wash'", "prompt")
    assert caught.value.field == "prompt"
