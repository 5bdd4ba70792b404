"""styles.csv: AUTOMATIC1111's files, read as they are and changed in one row."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import DamagedFile, InvalidRequest, StorageError, UnknownName
from studio.library.styles import StyleBook
from studio.prompt import Style

FILE = (
    b"\xef\xbb\xbfname,prompt,negative_prompt,rating\r\n"
    b"# ----- mine -----,,,\r\n"
    b'ink,"ink drawing of {prompt}, 8k",photo,5\r\n'
    b"\r\n"
    b'"two\r\nlines?","a\nb",,\r\n'
    b'odd,5" tall,"=1+1"\r\n'
    b",nameless,,\r\n"
)


@pytest.fixture
def book(tmp_path: Path) -> StyleBook:
    (tmp_path / "styles.csv").write_bytes(FILE)
    return StyleBook(tmp_path)


def test_reading(book: StyleBook) -> None:
    assert book.styles() == [
        Style("ink", "ink drawing of {prompt}, 8k", "photo"),
        Style("two\r\nlines?", "a\nb", ""),
        Style("odd", '5" tall', "=1+1"),
    ]
    assert book.find("odd").negative_prompt == "=1+1"


def test_an_unknown_style_names_what_is_near(book: StyleBook) -> None:
    with pytest.raises(UnknownName, match="'ink'"):
        book.find("inc")


def test_saving_changes_one_row(book: StyleBook, tmp_path: Path) -> None:
    book.save(Style("ink", "+x", 'say "no"'))
    changed = FILE.replace(b'ink,"ink drawing of {prompt}, 8k",photo,5', b'ink,+x,"say ""no""",5')
    assert (tmp_path / "styles.csv").read_bytes() == changed
    book.save(Style("new", "a, b", ""))
    assert (tmp_path / "styles.csv").read_bytes() == changed + b'new,"a, b",\r\n'
    book.delete("new")
    assert (tmp_path / "styles.csv").read_bytes() == changed


def test_a_new_file_is_what_a1111_writes(tmp_path: Path) -> None:
    book = StyleBook(tmp_path)
    assert book.styles() == []
    book.save(Style("ink", "a", "b"))
    assert (tmp_path / "styles.csv").read_bytes() == b"\xef\xbb\xbfname,prompt,negative_prompt\r\nink,a,b\r\n"


def test_a_last_row_without_line_end_and_the_oldest_form(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_bytes(b"name,text\nink,a drawing")
    book = StyleBook(tmp_path)
    assert book.styles() == [Style("ink", "a drawing", "")]
    book.save(Style("oil", "a painting", "photo"))
    assert (tmp_path / "styles.csv").read_bytes() == b"name,text,negative_prompt\nink,a drawing\noil,a painting,photo\n"


def test_several_files(book: StyleBook, tmp_path: Path) -> None:
    more = tmp_path / "styles_more.csv"
    more.write_bytes(b"name,prompt,negative_prompt\nink,other,\nsketch,s,\n")
    assert book.find("ink").prompt == "other"
    assert [style.name for style in book.styles()] == ["ink", "two\r\nlines?", "odd", "sketch"]
    book.save(Style("sketch", "t"))
    assert more.read_bytes() == b"name,prompt,negative_prompt\nink,other,\nsketch,t,\n"
    assert (tmp_path / "styles.csv").read_bytes() == FILE
    book.delete("ink")
    assert [style.name for style in book.styles()] == ["two\r\nlines?", "odd", "sketch"]


@pytest.mark.parametrize(
    "data, said",
    [
        (b"name,prompt\na,b\n\xff,c\n", "styles.csv cannot be read, line 3: it is not UTF-8"),
        (b'name,prompt\na,b\nc,"never closed\nd,e\n', "line 3: a quote"),
        (b"name,prompt\na,b,c,d\n", "line 2: it has 4 columns"),
        (b"title,prompt\na,b\n", "line 1: there is no column 'name'"),
        (b"name,prompt\na,b\0\n", "line 2: it holds a NUL"),
        (b"name,prompt\na," + b"x" * 200_000 + b"\n", "line 2"),
    ],
)
def test_damage_is_named_and_never_written_over(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "styles.csv"
    file.write_bytes(data)
    for act in (StyleBook(tmp_path).styles, lambda: StyleBook(tmp_path).save(Style("x", "y"))):
        with pytest.raises(DamagedFile, match=said):
            act()
    assert file.read_bytes() == data


@pytest.mark.parametrize("name", ["", " a", "# a", "a\nb", "a" * 301])
def test_names_that_no_row_can_have(book: StyleBook, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        book.save(Style(name, "x"))
    assert (tmp_path / "styles.csv").read_bytes() == FILE


def test_a_full_disk_leaves_the_old_file(book: StyleBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("studio.paths.os.fsync", full)
    with pytest.raises(StorageError, match="full"):
        book.save(Style("ink", "x"))
    assert (tmp_path / "styles.csv").read_bytes() == FILE
    assert [path.name for path in tmp_path.iterdir()] == ["styles.csv"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(TEXT, TEXT)
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: str) -> None:
    folder = tmp_path_factory.mktemp("styles")
    (folder / "styles.csv").write_bytes(FILE)
    StyleBook(folder).save(Style("ink", prompt, negative))
    assert StyleBook(folder).find("ink") == Style("ink", prompt, negative)
    assert StyleBook(folder).find("odd").prompt == '5" tall'
