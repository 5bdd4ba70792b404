"""Wildcard files: found by name, never outside of their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import DamagedFile, InvalidRequest, NotAllowed, UnknownName
from studio.library.wildcards import WildcardFolder


@pytest.fixture
def folder(tmp_path: Path) -> WildcardFolder:
    root = tmp_path / "wildcards"
    (root / "animals" / "wild").mkdir(parents=True)
    (root / "colour.txt").write_bytes(b"\xef\xbb\xbf# all of them\nred # warm\n\n  3::blue  \n")
    (root / "animals" / "cats.txt").write_text("lynx\n")
    (root / "animals" / "wild" / "dogs.txt").write_text("fox\nwolf")
    (root / "animals" / "empty.txt").write_text("# nothing\n")
    (root / ".hidden.txt").write_text("x")
    (root / "notes.md").write_text("x")
    (tmp_path / "secret.txt").write_text("password")
    return WildcardFolder(root)


def test_names(folder: WildcardFolder, tmp_path: Path) -> None:
    assert folder.names() == ["animals/cats", "animals/empty", "animals/wild/dogs", "colour"]
    assert WildcardFolder(tmp_path / "nowhere").names() == []


@pytest.mark.parametrize(
    "name, lines",
    [
        ("colour", ["red", "3::blue"]),
        ("animals/cats", ["lynx"]),
        ("dogs", ["fox", "wolf"]),
        ("wild/dogs", ["fox", "wolf"]),
        ("animals/*", ["lynx", "fox", "wolf"]),
        ("*s", ["lynx", "fox", "wolf"]),
    ],
)
def test_lines(folder: WildcardFolder, name: str, lines: list[str]) -> None:
    assert folder.lines(name) == lines


def test_unknown_names_say_what_is_near_and_how_to_escape(folder: WildcardFolder) -> None:
    with pytest.raises(UnknownName, match=r"'color'.*'colour'.*wildcards/.*\\__color__"):
        folder.lines("color")
    with pytest.raises(UnknownName):
        folder.lines("nothing*")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "animals/../../secret", "animals//cats", "con"])
def test_no_name_leads_out(folder: WildcardFolder, name: str) -> None:
    with pytest.raises(NotAllowed):
        folder.lines(name)


def test_a_link_to_outside_is_not_read(folder: WildcardFolder, tmp_path: Path) -> None:
    (tmp_path / "wildcards" / "link.txt").symlink_to(tmp_path / "secret.txt")
    for name in ("link", "li*"):
        with pytest.raises(NotAllowed):
            folder.lines(name)


def test_files_without_options_and_damaged_ones(folder: WildcardFolder, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="animals/empty"):
        folder.lines("animals/empty")
    (tmp_path / "wildcards" / "bad.txt").write_bytes(b"a\nb\xff\n")
    with pytest.raises(DamagedFile, match=r"wildcards/bad\.txt cannot be read, line 2"):
        folder.lines("bad")
