"""The files of the repository: tests mirror the program, wording stays about the product."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, STUDIO

# Folders of tests that are about something else than one part of the program.
OTHER_TESTS = {"architecture", "browser", "docs", "doors", "e2e", "launch", "vectors"}


@cache
def files() -> list[str]:
    """What git tracks, and what it would if it were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this folder is no git repository")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def text_of(name: str) -> str:
    """The text of a file; empty for pictures and the like."""
    content = (ROOT / name).read_bytes()
    return "" if b"\0" in content else content.decode("utf-8", "replace")


def test_tests_mirror_the_program() -> None:
    folders = {Path(name).parent.relative_to("tests") for name in files() if re.match(r"tests/.*test_\w+\.py$", name)}
    stray = {
        str(folder)
        for folder in folders
        if folder.parts and folder.parts[0] not in OTHER_TESTS and not (STUDIO / folder).is_dir()
    }
    assert stray == set()


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in STUDIO.rglob("*.py")}
    assert {str(folder) for folder in folders if not (folder / "__init__.py").is_file()} == set()


def test_tests_are_no_packages() -> None:
    assert [name for name in files() if re.match(r"tests/.*__init__\.py$", name)] == []


@pytest.mark.parametrize(
    "what, pattern",
    [
        ("notes to self", r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b"),
        ("paths of one machine", r"(?<![\w.*<>-])/(?:work|opt/(?!rocm)|home/\w+|Users/\w+|tmp/brief)/\w"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    found = [
        f"{name}:{number}"
        for name in files()
        if not name.endswith((".lock", "vocab.json", "merges.txt"))
        for number, line in enumerate(text_of(name).splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], what


def test_files_are_small() -> None:
    """A clone is quick: 40 MB for the embedded model, 15 MB for its CLIP pair, little for everything else."""
    models = ("checkpoints/sprout-v1/", "checkpoints/sprout-clip/")
    sizes = {name: (ROOT / name).stat().st_size for name in files() if not name.startswith(models)}
    assert {name: size for name, size in sizes.items() if size > 2_500_000} == {}
