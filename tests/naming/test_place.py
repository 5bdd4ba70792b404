"""Whatever a prompt or a pattern says, a name is legal everywhere and lies inside its folder."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studio.naming import PictureFacts, expand, file_name, folder_names, legal_name, picture_decoration
from studio.naming.sanitise import NAME_BYTES
from studio.paths import is_reserved, safe_join
from studio.settings import Settings

ROOT = Path("/pictures")
HOSTILE = ["../../etc/passwd", "..", "...", ".", "", " ", "CON", "nul.txt", "COM¹", "conin$ .x", "a\0b\x1f\x7f", "🦊" * 300, "é" * 300,
           "x" * 300, "CON" + " " * 300 + "x", "..\\..\\x", "/absolute", "C:\\x", "a:b|c?*", ". .hidden. .", "a\ud800b", "tail. . ",
           "a/../b/./c//d", "\n\r\t", "\u202egnp.exe"]  # fmt: skip
TEXT = st.one_of(st.text(max_size=60), st.sampled_from(HOSTILE), st.text("./\\ CONcon12¹🦊\0[]<>", max_size=300))
SAYABLE = TEXT.filter(
    lambda text: not re.search("[\ud800-\udfff]", text)
)  # no setting and no prompt holds half a character
TAGS = [
    "[prompt]",
    "[prompt_spaces]",
    "[prompt_words]",
    "[user]",
    "[model_name]",
    "[vae_filename]",
    "[nothing]",
    "/",
    ".",
    "-",
]


def check_name(name: str) -> None:
    assert 0 < len(name.encode()) <= NAME_BYTES
    assert not is_reserved(name)
    assert safe_join(ROOT, name).parent == ROOT


@settings(deadline=None)
@given(TEXT)
@example("CON" + " " * 300 + "x")
@example("🦊" * 300)
def test_every_text_becomes_a_legal_name(text: str) -> None:
    check_name(legal_name(text, ".png"))
    folder = legal_name(text)
    if folder:
        check_name(folder)
        assert legal_name(folder) == folder


@settings(deadline=None)
@given(
    prompt=SAYABLE,
    outside=SAYABLE,
    patterns=st.lists(st.one_of(st.sampled_from(TAGS), SAYABLE), max_size=6).map("".join),
    numbered=st.booleans(),
)
def test_every_pattern_stays_inside(prompt: str, outside: str, patterns: str, numbered: bool) -> None:
    facts = PictureFacts(seed=7, prompt=prompt, user=outside, model_name=outside, vae_file=outside)
    chosen = Settings(samples_filename_pattern=patterns, directories_filename_pattern=patterns)
    folders = folder_names(chosen, facts)
    name = file_name(expand(picture_decoration(chosen), facts).text, [], numbered=numbered)
    for part in (*folders, name):
        check_name(part)
    assert safe_join(ROOT, *folders, name) == ROOT.joinpath(*folders, name)
    assert not numbered or name.startswith("00000")


@pytest.mark.parametrize(
    "text, folder, file",
    [
        ("..", "", "...png"),
        ("CON", "_CON", "_CON.png"),
        ("nul.txt", "_nul.txt", "_nul.txt.png"),
        ("com¹", "_com¹", "_com¹.png"),
        ("console", "console", "console.png"),
        ("a\0b/c", "a_b_c", "a_b_c.png"),
        (" a. . ", "a", " a. . .png"),
        ("x" * 300, "x" * 239, "x" * 235 + ".png"),
        ("🦊" * 300, "🦊" * 59, "🦊" * 58 + ".png"),
    ],
)
def test_names_that_are_not_legal_are_mended(text: str, folder: str, file: str) -> None:
    assert legal_name(text) == folder
    assert legal_name(text, ".png") == file


@pytest.mark.parametrize(
    "pattern, folders",
    [
        ("../../[user]", ["bob_.._x"]),
        ("/[date]/", ["2026-01-31"]),
        ("a\\..\\b", ["a", "b"]),
        ("[prompt_spaces]", []),
        ("...", []),
        ("CON/[seed]", ["_CON", "7"]),
    ],
)
def test_folders_never_lead_out(pattern: str, folders: list[str]) -> None:
    facts = PictureFacts(seed=7, prompt="...", user="bob/../x", now=datetime(2026, 1, 31))
    assert folder_names(Settings(directories_filename_pattern=pattern), facts) == folders
    assert folder_names(Settings(directories_filename_pattern=pattern, save_to_dirs=False), facts) == []


@pytest.mark.parametrize(
    "decoration, taken, numbered, name",
    [
        ("7", [], True, "00000-7.png"),
        ("7", ["00041-1.png", "00012-x.jpg", "notes.txt"], True, "00042-7.png"),
        ("7", ["7.png"], False, "7-1.png"),
        ("7", ["7.png", "7-1.png"], False, "7-2.png"),
        ("Fox", ["fOX.PNG"], False, "Fox-1.png"),
        ("", [], False, "00000.png"),
        ("..", ["00003.png"], False, "00004-...png"),
        ("a/b", [], False, "a_b.png"),
    ],
)
def test_a_name_is_free(decoration: str, taken: list[str], numbered: bool, name: str) -> None:
    assert file_name(decoration, taken, numbered=numbered) == name


def test_long_names_stay_apart() -> None:
    taken: list[str] = []
    for _ in range(12):
        taken.append(file_name("🦊" * 300, taken, numbered=False))
    assert len(set(taken)) == 12
    assert max(len(name.encode()) for name in taken) <= NAME_BYTES


def test_a_text_file_beside_the_picture_is_not_written_over() -> None:
    assert file_name("notes", ["notes.txt"], numbered=False, beside=("txt",)) == "notes-1.png"
    assert file_name("notes", ["notes.txt"], numbered=False) == "notes.png"


def test_the_default_pattern_depends_on_the_folders() -> None:
    assert picture_decoration(Settings()) == "[seed]"
    assert picture_decoration(Settings(save_to_dirs=False)) == "[seed]-[prompt_spaces]"
    assert picture_decoration(Settings(samples_filename_pattern="[cfg]", save_to_dirs=False)) == "[cfg]"
