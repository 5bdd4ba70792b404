"""ZIP files from anywhere: what comes in, what does not, and that nothing is left of a refused one."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.errors import DatasetError, NotAllowed, StorageError, StudioError
from studio.paths import is_reserved
from studio.schema.training_data import DatasetSettings
from studio.training.data import archive
from studio.training.data.archive import folder_name, unpack
from studio.training.data.dataset import read_dataset
from tests.training.data import drawn

PICTURE = drawn.encoded(drawn.picture(1))


def pack(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def left_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("inside", ["", "my data/"])
@pytest.mark.parametrize(
    "draw", [drawn.folder, drawn.jsonl, drawn.table, drawn.kohya, drawn.parquet, drawn.flickr8k, drawn.idx]
)
def test_a_packed_data_set_is_the_data_set(draw: Callable[[Path], Path], inside: str, tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    before = read_dataset(DatasetSettings(path=str(root)))
    there = unpack(drawn.zipped(root, tmp_path / "x.zip", inside), tmp_path / "datasets", "my set").folder
    after = read_dataset(DatasetSettings(path=str(there)))
    assert there == tmp_path / "datasets" / "my set"
    assert after.digest == before.digest
    assert [item.name for item in after.items] == [item.name for item in before.items]


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("a.png", PICTURE))
    names = [unpack(file, tmp_path / "d", "fox").folder.name for _ in range(3)]
    assert names == ["fox", "fox-2", "fox-3"]


def test_only_what_data_sets_are_made_of_comes_in(tmp_path: Path) -> None:
    file = pack(
        tmp_path / "x.zip",
        ("a.png", PICTURE),
        ("a.txt", b"a"),
        ("model.safetensors", b"x"),
        ("setup.py", b"x"),
        ("evil.pkl", b"x"),
        ("__MACOSX/._a.png", b"x"),
        (".hidden/a.png", PICTURE),
        ("inner.zip", b"PK"),
        ("empty/", b""),
    )
    unpacked = unpack(file, tmp_path / "d", "x")
    assert left_in(unpacked.folder) == ["a.png", "a.txt"]
    assert unpacked.left_out == ("model.safetensors", "setup.py", "evil.pkl", "inner.zip")  # nobody misses hidden files


def linked(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = mode << 16
    return entry


OUTSIDE = (
    "../a.png", "x/../../a.png", "/a.png", "..\\a.png", "C:/a.png", "C:a.png", "\\\\host\\share\\a.png", "a/./b.png", "a//b.png",
    "CON.png", "x/nul.txt", "a.png/", "a?.png", "a\n.png", "x./a.png", "x /a.png", "a" * 300 + ".png", "b/" * 600 + "a.png",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name != "a.png/"])
def test_names_that_lead_elsewhere_refuse_the_whole(name: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("good.png", PICTURE), (name, PICTURE))
    with pytest.raises(NotAllowed):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path) == ["d", "x.zip"]


@pytest.mark.parametrize(
    "name",
    ["Icon\r", "fox/Icon\r", "notes: todo?.md", "aux.c", "why?/", "a//b.md", "__MACOSX/._a?.png", "b/" * 600 + "a.md"],
)
def test_names_of_what_stays_out_refuse_nothing(name: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("good.png", PICTURE), (name, b"x"))
    assert left_in(unpack(file, tmp_path / "d", "x").folder) == ["good.png"]


@pytest.mark.parametrize(
    "name", ["../a.md", "x/../../a", "..", "../", "/a.md", "/", "..\\a.md", "C:/a.md", "c:a.md", "\\\\host\\a.md"]
)
def test_whatever_leads_outside_refuses_the_whole(name: str, tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("good.png", PICTURE), (name, b"x"))
    with pytest.raises(NotAllowed, match="no name of a file inside"):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path) == ["d", "x.zip"]


def unflagged(path: Path, names: dict[str, bytes]) -> Path:
    """A ZIP whose names are those bytes, without the flag that says UTF-8, as Finder and Info-ZIP write them."""
    file = pack(path, *((name, PICTURE) for name in names))
    data = file.read_bytes()
    for name, raw in names.items():
        assert name.isascii() and len(name) == len(raw)
        data = data.replace(name.encode(), raw)
    file.write_bytes(data)
    return file


def test_names_in_utf_8_that_do_not_say_so(tmp_path: Path) -> None:
    names = {"fuchs-gro__.png": "fuchs-groß.png".encode(), "______.png": "狐狸".encode() + b".png"}
    there = unpack(unflagged(tmp_path / "x.zip", names), tmp_path / "d", "x").folder
    assert left_in(there) == ["fuchs-groß.png", "狐狸.png"]
    assert (there / "fuchs-groß.png").read_bytes() == PICTURE


def test_names_in_the_old_encoding_stay_what_they_are(tmp_path: Path) -> None:
    names = {"fuchs-gro_.png": "fuchs-groß.png".encode("cp437"), "m_we.png": "möwe.png".encode("cp437")}
    there = unpack(unflagged(tmp_path / "x.zip", names), tmp_path / "d", "x").folder
    assert left_in(there) == ["fuchs-groß.png", "möwe.png"]


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("good.png", PICTURE), ("aXb.png", PICTURE))
    file.write_bytes(file.read_bytes().replace(b"aXb.png", b"a\0b.png"))
    with pytest.raises(StudioError):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path / "d") == []


@pytest.mark.parametrize(
    "mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o666, stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o666]
)
def test_links_and_devices_refuse_the_whole(mode: int, tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("good.png", PICTURE), (linked("a.png", mode), b"/etc/passwd"))
    with pytest.raises(NotAllowed, match="link or a device"):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path / "d") == []


@pytest.mark.parametrize(
    "names",
    [("a.png", "A.PNG"), ("a.png", "a.png/b.png"), ("x/a.png", "X/A.png")],
    ids=["case", "file-and-folder", "deep"],
)
def test_names_that_collide(names: tuple[str, ...], tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", *((name, PICTURE) for name in names))
    with pytest.raises(DatasetError, match=r"twice|as a file and as a folder"):
        unpack(file, tmp_path / "d", "x")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(tmp_path / "x.zip", ("a.bmp", bytes(200_000_000)))
    assert file.stat().st_size < 300_000
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(DatasetError, match="times its size"):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path / "d") == []


def test_a_bomb_of_many_small_files(tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", *((f"{number}.txt", bytes(1_000_000)) for number in range(80)))
    with pytest.raises(DatasetError, match="times its size"):
        unpack(file, tmp_path / "d", "x")


def test_more_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pack(tmp_path / "x.zip", *((f"{number}.png", PICTURE) for number in range(5)))
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_ENTRIES", 4)
        with pytest.raises(DatasetError, match="5 files; 4"):
            unpack(file, tmp_path / "d", "x")
    for limit in ("MAX_TOTAL", "MAX_FILE"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, len(PICTURE) - 1)
            with pytest.raises(DatasetError, match="GB a file"):
                unpack(file, tmp_path / "d", "x")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "SPARE", 1 << 60)
        with pytest.raises(StorageError, match="free"):
            unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path / "d") == []


def test_a_directory_that_lies_about_a_size(tmp_path: Path) -> None:
    """The central directory says 10 bytes where 100,000 are packed: no more than it says is ever written."""
    file = pack(tmp_path / "x.zip", ("a.txt", b"x" * 100_000))
    data = file.read_bytes()
    at = data.index(b"PK\x01\x02") + 24
    file.write_bytes(data[:at] + struct.pack("<I", 10) + data[at + 4 :])
    with pytest.raises(DatasetError):
        unpack(file, tmp_path / "d", "x")
    assert left_in(tmp_path / "d") == []


def test_files_that_are_no_zip_or_damaged(tmp_path: Path) -> None:
    good = pack(tmp_path / "x.zip", ("a.png", PICTURE), ("b.png", PICTURE)).read_bytes()
    cases = [b"", b"PK", b"no zip at all", good[:-30], good[:60] + b"\xff" * 20 + good[80:]]
    for number, data in enumerate(cases):
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(DatasetError, match="no sound ZIP"):
            unpack(tmp_path / "bad.zip", tmp_path / "d", f"x{number}")
    assert left_in(tmp_path / "d") == []


def test_passwords_and_rare_packings(tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("a.png", PICTURE))
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="password"):
        unpack(tmp_path / "locked.zip", tmp_path / "d", "x")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as other:
        other.writestr("a.png", PICTURE)
    with pytest.raises(DatasetError, match="rare way"):
        unpack(tmp_path / "lzma.zip", tmp_path / "d", "x")
    with pytest.raises(DatasetError, match="no pictures"):
        unpack(pack(tmp_path / "none.zip", ("readme.md", b"x")), tmp_path / "d", "x")


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    file = pack(tmp_path / "x.zip", ("a.png", PICTURE))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        unpack(file, tmp_path / "file" / "d", "x")


def test_a_break_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    file = pack(tmp_path / "x.zip", ("a.png", PICTURE), ("b.png", PICTURE))
    with pytest.raises(KeyboardInterrupt):
        unpack(file, tmp_path / "d", "x", stop)
    assert left_in(tmp_path / "d") == []


@given(st.text(max_size=200))
def test_any_text_becomes_the_name_of_a_folder(text: str) -> None:
    name = folder_name(text)
    assert name
    assert len(name) <= 61
    assert name not in (".", "..")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert not is_reserved(name)
    assert name[0] not in ". " and name[-1] not in ". "


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(name=st.text(min_size=1, max_size=60).filter(lambda name: name[0] != "\0"))  # `zipfile` ends a name there
def test_no_name_ever_leaves_the_folder(name: str, tmp_path: Path) -> None:
    root = tmp_path / os.urandom(6).hex()
    root.mkdir()
    try:
        file = pack(root / "x.zip", (name + ".png", PICTURE))
    except (UnicodeEncodeError, ValueError):
        return
    try:
        there = unpack(file, root / "d", "x").folder
    except StudioError:
        assert left_in(root / "d") == []
        return
    files = [path for path in root.rglob("*") if path.is_file() and path != file]
    assert all(there in path.parents for path in files)
