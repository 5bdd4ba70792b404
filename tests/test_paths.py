"""Paths: nothing leaves its folder, no write leaves a half file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import NotAllowed, StorageError
from studio.paths import atomic_write, safe_join

HOSTILE = [
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "nul",
    "CON.txt",
    "COM1",
    "COM¹",
    "a\0b",
    "a\nb",
    "x" * 300,
    "dot.",
    "space ",
    "C:x",
    "a//b",
    "../x",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotAllowed):
        safe_join(tmp_path, name)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_whatever_is_joined_lies_inside(parts: list[str]) -> None:
    root = Path("/somewhere/root")
    try:
        joined = safe_join(root, *parts)
    except NotAllowed:
        return
    assert root.resolve() in joined.parents


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(NotAllowed):
        safe_join(root, "link")


def test_ordinary_names_pass(tmp_path: Path) -> None:
    assert safe_join(tmp_path, "sub folder", "bild ü 狐.png") == tmp_path.resolve() / "sub folder" / "bild ü 狐.png"
    assert safe_join(tmp_path, "a/b.png") == tmp_path.resolve() / "a" / "b.png"


def test_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "file.txt"
    atomic_write(file, b"one")
    atomic_write(file, b"two")
    assert file.read_bytes() == b"two"
    assert os.listdir(file.parent) == ["file.txt"]


def test_full_disk_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.txt"
    atomic_write(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.txt"]
