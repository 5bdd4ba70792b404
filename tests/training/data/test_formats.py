"""Every format from files as they lie around, whole and damaged."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from PIL import Image

from studio.errors import DatasetError, InvalidRequest, NotFound, TrainingError, UnknownName
from studio.schema.training_data import DatasetSettings
from studio.training.data.dataset import Dataset, edit_captions, locate, read_dataset
from studio.training.data.formats import FORMATS, parquet
from tests.training.data import drawn


def settings(root: Path, **fields: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"path": str(root), **fields})


def read(root: Path, **fields: object) -> Dataset:
    return read_dataset(settings(root, **fields))


EVERY: dict[str, Callable[[Path], Path]] = {
    "folder": drawn.folder,
    "metadata": drawn.jsonl,
    "kohya": drawn.kohya,
    "parquet": drawn.parquet,
    "flickr8k": drawn.flickr8k,
    "idx": drawn.idx,
}


def test_every_format_is_tried() -> None:
    assert set(FORMATS.names()) == set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_a_format_is_recognised_whether_named_or_not(name: str, tmp_path: Path) -> None:
    EVERY[name](tmp_path)
    found = read(tmp_path)
    assert found.format == name
    assert found.problems == ()
    assert read(tmp_path, format=name) == found


@pytest.mark.parametrize("name", EVERY)
def test_a_format_is_found_in_the_only_folder_of_a_folder(name: str, tmp_path: Path) -> None:
    EVERY[name](tmp_path / "one" / "two") if name != "metadata" else drawn.jsonl(tmp_path / "one" / "two")
    assert locate(settings(tmp_path)).root == tmp_path / "one" / "two"


@pytest.mark.parametrize("name", EVERY)
def test_keys_name_the_picture(name: str, tmp_path: Path) -> None:
    EVERY[name](tmp_path)
    items = read(tmp_path).items
    assert all(len(item.key) == 64 and int(item.key, 16) >= 0 for item in items)
    assert len({item.key for item in items}) == len({item.name for item in items}) == len(items)
    for item in items:
        picture = item.picture()
        assert (picture.size, picture.mode) == (item.size, "RGB")


def test_folder(tmp_path: Path) -> None:
    found = read(drawn.folder(tmp_path, 4))
    assert [item.name for item in found.items] == ["000.png", "002.png", "sub/001.png", "sub/003.png"]
    assert found.items[2].captions == (drawn.caption(1),)
    assert found.items[2].key == hashlib.sha256((tmp_path / "sub" / "001.png").read_bytes()).hexdigest()
    assert np.array_equal(np.asarray(found.items[2].picture()), np.asarray(drawn.picture(1)))


def test_caption_files(tmp_path: Path) -> None:
    texts = {
        "bom": b"\xef\xbb\xbfa fox",
        "utf16": "ein Füchslein".encode("utf-16"),
        "lines": b"one\r\n\r\n two \n",
        "empty": b" \n",
    }
    for number, (name, data) in enumerate(texts.items()):
        drawn.save(tmp_path / f"{name}.png", number).with_suffix(".caption").write_bytes(data)
    drawn.save(tmp_path / "both.png", 9).with_suffix(".caption").write_text("caption")
    (tmp_path / "both.txt").write_text("txt")
    captions = {item.name: item.captions for item in read(tmp_path).items}
    assert captions == {
        "bom.png": ("a fox",),
        "utf16.png": ("ein Füchslein",),
        "lines.png": ("one", "two"),
        "empty.png": ("",),
        "both.png": ("txt",),
    }


@pytest.mark.parametrize(
    "data, said",
    [
        ("é".encode("cp1252"), "no UTF-8 text (byte 0)"),
        (b"\xff\xfea", "no UTF-16 text"),
        (b"a\0b", "NUL"),
        (b"x" * 700_000, "640,000 bytes"),
        (b"x" * 10_001, "10,001 characters"),
        (b"a\n" * 65, "65 lines"),
    ],
)
def test_a_picture_whose_caption_file_is_damaged_is_left_out_and_named(data: bytes, said: str, tmp_path: Path) -> None:
    drawn.folder(tmp_path, 2)
    (tmp_path / "000.txt").write_bytes(data)
    found = read(tmp_path)
    assert [item.name for item in found.items] == ["sub/001.png"]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("000.png ")
    assert said in found.problems[0]


def test_files_that_are_none_of_ours_are_left_alone(tmp_path: Path) -> None:
    drawn.folder(tmp_path, 2)
    drawn.save(tmp_path / ".hidden" / "a.png", 5)
    drawn.save(tmp_path / "__MACOSX" / "a.png", 5)
    (tmp_path / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "notes.md").write_text("x")
    found = read(tmp_path)
    assert (len(found.items), found.problems) == (2, ())


@pytest.mark.parametrize("column", ["text", "caption"])
@pytest.mark.parametrize("draw", [drawn.jsonl, drawn.table])
def test_metadata(draw: Callable[[Path, int, str], Path], column: str, tmp_path: Path) -> None:
    found = read(draw(tmp_path, 3, column))
    assert [item.captions[0].removesuffix(", flat") for item in found.items] == [drawn.caption(n) for n in range(3)]
    assert (found.format, found.problems, found.notes) == ("metadata", (), ())


def test_metadata_in_train(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    drawn.jsonl(tmp_path / "train", 2)
    found = read(tmp_path)
    assert [item.name for item in found.items] == ["train/images/000.png", "train/images/001.png"]
    former = edit_captions(settings(tmp_path), "train/images/001.png", ["new"])
    assert former == (drawn.caption(1),)
    assert read(tmp_path).items[1].captions == ("new",)


def test_rows_of_metadata_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    drawn.jsonl(tmp_path / "data", 2)
    root = tmp_path / "data"
    secret = drawn.save(tmp_path / "secret.png", 9)
    rows = [
        '{"file_name": "images/000.png", "text": ["one", "two"]}',
        '{"file_name": "images/000.png"}',
        '{"file_name": "../secret.png", "text": "x"}',
        json.dumps({"file_name": str(secret), "text": "x"}),
        '{"file_name": "images/gone.png", "text": "x"}',
        '{"file_name": "images/001.png", "text": 7}',
        '{"text": "x"}',
        "{broken",
        "[1]",
        "[" * 100_000,
        "",
        '{"file_name": "a\\u0000b"}',
        '{"file_name": "images/001.png", "text": "\\ud800"}',
    ]
    (root / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = read(root)
    assert [(item.name, item.captions) for item in found.items] == [
        ("images/000.png", ("one", "two")),
        ("images/000.png#2", ("",)),
    ]
    lines = [int(problem.split("line ")[1].split()[0].rstrip(":")) for problem in found.problems]
    assert lines == [3, 4, 5, 6, 7, 8, 9, 10, 12, 13]
    assert "outside" not in "".join(item.name for item in found.items)
    assert any("1 pictures are in no row" in note for note in found.notes)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"name,text\na.png,x\n", "no column file_name"),
        (b'file_name,text\na.png,"x\n', "line 2"),
        (b"file_name,text\na.png,\xff\n", "UTF-8"),
        (b"file_name,text\na.png,\0\n", "NUL"),
        (b"", "None"),
        (b"file_name,text\n", "no pictures"),
        (b"file_name,text\na.png,one,two\n", "3 columns"),
    ],
)
def test_a_damaged_table(data: bytes, said: str, tmp_path: Path) -> None:
    drawn.save(tmp_path / "a.png", 1)
    (tmp_path / "metadata.csv").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert said in caught.value.message or (data == b"" and "no pictures" in caught.value.message)


def test_kohya(tmp_path: Path) -> None:
    found = read(drawn.kohya(tmp_path), repeats=2)
    assert [(item.name, item.captions, item.repeats) for item in found.items] == [
        ("10_sks dog/a.png", ("a sks dog",), 20),
        ("10_sks dog/b.png", ("sks dog",), 20),
        ("1_cat/c.png", ("a cat",), 2),
    ]
    assert "10_sks dog (10x)" in found.notes[0]


def test_one_folder_of_kohyas_alone(tmp_path: Path) -> None:
    drawn.kohya(tmp_path)
    found = read(tmp_path / "10_sks dog")
    assert [item.repeats for item in found.items] == [10, 10]
    assert found.items[1].captions == ("sks dog",)


def test_a_year_is_no_number_of_repeats(tmp_path: Path) -> None:
    drawn.folder(tmp_path / "2024_holiday", 2)
    found = read(tmp_path / "2024_holiday")
    assert (found.format, found.items[0].repeats) == ("folder", 1)


def test_kohya_tells_of_pictures_that_are_in_no_such_folder(tmp_path: Path) -> None:
    drawn.kohya(tmp_path)
    drawn.save(tmp_path / "reg" / "x.png", 8)
    found = read(tmp_path)
    assert len(found.items) == 3
    assert any(note.startswith("1 pictures are in no folder") for note in found.notes)


def test_parquet(tmp_path: Path) -> None:
    found = read(drawn.parquet(tmp_path, 7, shards=2, group=3))
    assert [item.captions for item in found.items] == [(drawn.caption(n),) for n in range(7)]
    assert found.items[5].name == "data/train-00001-of-00002.parquet row 1"
    expected = [hashlib.sha256(drawn.encoded(drawn.picture(n), "JPEG", quality=95)).hexdigest() for n in range(7)]
    assert [item.key for item in found.items] == expected


def test_rows_of_parquet_are_read_in_any_order(tmp_path: Path) -> None:
    items = read(drawn.parquet(tmp_path, 40, shards=2, group=7)).items
    for number in (39, 0, 13, 12, 14, 38, 20, 19, 3, 3):
        near = np.abs(np.asarray(items[number].picture(), int) - np.asarray(drawn.picture(number), int))
        assert near.mean() < 8, number


def test_one_parquet_file_and_those_not_called_train(tmp_path: Path) -> None:
    drawn.parquet(tmp_path, 4, shards=1)
    data = tmp_path / "data"
    (data / "test-00000.parquet").write_bytes((data / "train-00000-of-00001.parquet").read_bytes())
    assert len(read(tmp_path).items) == 4
    assert any("1 further parquet" in note for note in read(tmp_path).notes)
    alone = read(data / "test-00000.parquet")
    assert [item.name for item in alone.items] == [f"test-00000.parquet row {n}" for n in range(4)]


def write_parquet(path: Path, columns: dict[str, object]) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path)


def test_cells_of_parquet_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = drawn.encoded(drawn.picture(1))
    cells = [
        {"bytes": good, "path": "a.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": b"no picture", "path": None},
        None,
        {"bytes": good[:100], "path": None},
        {"bytes": good, "path": None},
    ]
    write_parquet(
        tmp_path / "x.parquet", {"image": cells, "caption": [["one", "two"], ["b"], ["c"], ["d"], ["e"], None]}
    )
    found = read(tmp_path)
    assert [(item.name, item.captions) for item in found.items] == [
        ("x.parquet row 0", ("one", "two")),
        ("x.parquet row 5", ("",)),
    ]
    assert [problem.split(" ", 3)[2] for problem in found.problems] == ["1", "2", "3", "4"]
    assert "b.png" in found.problems[0]


def test_parquet_files_that_are_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", {"picture": [b"x"], "text": ["y"]})
    with pytest.raises(DatasetError, match="no column image; it has picture, text"):
        read(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(DatasetError, match="damaged"):
        read(tmp_path)


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    drawn.parquet(tmp_path, 4, shards=1)
    file = next((tmp_path / "data").iterdir())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="damaged"):
        read(tmp_path)


@pytest.mark.parametrize("tokens", [False, True])
def test_flickr8k(tokens: bool, tmp_path: Path) -> None:
    found = read(drawn.flickr8k(tmp_path, 3, tokens))
    assert found.format == "flickr8k"
    assert [len(item.captions) for item in found.items] == [5, 5, 5]
    assert found.items[1].captions[4] == f"{drawn.caption(1)} , version 4"


def test_flickr8k_names_pictures_that_are_not_there(tmp_path: Path) -> None:
    drawn.flickr8k(tmp_path, 2)
    with (tmp_path / "captions.txt").open("a") as stream:
        stream.write(
            "2258277193_586949ec62.jpg.1,people waiting , for a train\n../../etc/passwd,x\n0_ab.jpg,six, with commas\n"
        )
    found = read(tmp_path)
    assert len(found.problems) == 2
    assert "2258277193_586949ec62.jpg.1" in found.problems[0]
    assert found.items[0].captions[5] == "six, with commas"


@pytest.mark.parametrize("packed", [False, True])
def test_idx(packed: bool, tmp_path: Path) -> None:
    found = read(drawn.idx(tmp_path, 20, packed=packed))
    assert [item.captions[0] for item in found.items[:3]] == ["T-shirt/top", "Trouser", "Pullover"]
    assert found.items[19].captions == ("Ankle boot",)
    assert "Fashion-MNIST" in found.notes[0]
    grey = np.asarray(found.items[4].picture())
    assert grey.shape == (28, 28, 3)
    assert (grey[:5] == 200).all()
    assert grey[5, 0, 0] == 0
    (tmp_path / "classes.txt").write_text("zero\none\n\nthree\n4\n5\n6\n7\n8\n")
    named = read(tmp_path)
    assert [item.captions[0] for item in named.items[:4]] == ["zero", "one", "", "three"]
    assert len(named.problems) == 2
    assert "label 9" in named.problems[0]
    assert "9 classes" in named.problems[0]


@pytest.mark.parametrize("name", ["folder", "metadata", "kohya", "parquet", "flickr8k", "idx"])
def test_an_edit_is_written_and_writing_the_former_text_undoes_it(name: str, tmp_path: Path) -> None:
    EVERY[name](tmp_path)
    before, files = read(tmp_path), snapshot(tmp_path)
    target = before.items[-1]
    former = edit_captions(settings(tmp_path), target.name, [" new words, with ünïcode ¶ "])
    after = read(tmp_path)
    assert after.items[-1].captions == ("new words, with ünïcode ¶",)
    assert after.items[:-1] == before.items[:-1]
    assert after.digest != before.digest
    edit_captions(settings(tmp_path), target.name, former)
    undone = read(tmp_path)
    assert undone.items == before.items
    assert undone.digest == before.digest
    assert pixels(snapshot(tmp_path)) == pixels(files)
    with pytest.raises(NotFound):
        edit_captions(settings(tmp_path), "no such picture", ["x"])


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith((".png", ".jpg", ".parquet", ".gz"))}


def test_an_edit_of_a_caption_file(tmp_path: Path) -> None:
    drawn.kohya(tmp_path)
    where = settings(tmp_path)
    assert edit_captions(where, "10_sks dog/a.png", ["x"]) == ("a sks dog",)
    assert (tmp_path / "10_sks dog" / "a.caption").read_text() == "x\n"
    assert not (tmp_path / "10_sks dog" / "a.txt").exists()
    assert edit_captions(where, "10_sks dog/b.png", ["y", "z"]) == ()
    assert (tmp_path / "10_sks dog" / "b.txt").read_text() == "y\nz\n"
    assert edit_captions(where, "10_sks dog/b.png", []) == ("y", "z")
    assert not (tmp_path / "10_sks dog" / "b.txt").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_edit_of_a_table_leaves_every_other_byte(end: str, tmp_path: Path) -> None:
    for name in "abc":
        drawn.save(tmp_path / f"{name}.png", ord(name))
    lines = ["\ufefffile_name,text,artist", 'a.png,"one, two",x', "", "b.png,  plain  ,y", 'c.png,"a ""q""",z']
    (tmp_path / "metadata.csv").write_bytes(end.join(lines).encode())
    assert edit_captions(settings(tmp_path), "b.png", ['say "hi", you']) == ("plain",)
    lines[3] = 'b.png,"say ""hi"", you",y'
    assert (tmp_path / "metadata.csv").read_bytes() == end.join(lines).encode()
    with pytest.raises(InvalidRequest, match="one caption"):
        edit_captions(settings(tmp_path), "b.png", ["one", "two"])


@pytest.mark.parametrize(
    ("titles", "row", "edited"),
    [
        ("file_name,text,,", "a.png,x,one,two", "a.png,new,one,two"),
        ("note,file_name,note,text,note", "1,a.png,2,x,3", "1,a.png,2,new,3"),
        ("file_name,text,text", "a.png,first,x", "a.png,first,new"),  # of two the last is read
        ("file_name,artist,text,n", "a.png,ann,x", "a.png,ann,new"),
        ("file_name,artist,text,n", "a.png", "a.png,,new"),
    ],
)
def test_an_edit_leaves_every_other_cell(titles: str, row: str, edited: str, tmp_path: Path) -> None:
    drawn.save(tmp_path / "a.png", 1)
    (tmp_path / "metadata.csv").write_text(f"{titles}\n{row}\n")
    former = edit_captions(settings(tmp_path), "a.png", ["new"])
    assert (tmp_path / "metadata.csv").read_text() == f"{titles}\n{edited}\n"
    assert former == (("x",) if "x" in row.split(",") else ())
    assert read(tmp_path).items[0].captions == ("new",)


def test_an_edit_of_a_line_of_json(tmp_path: Path) -> None:
    for name in "ab":
        drawn.save(tmp_path / f"{name}.png", ord(name))
    lines = ['{ "file_name":"a.png" }', '{"file_name": "b.png", "n": 1.50, "text": ["x", "y"]}']
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert edit_captions(settings(tmp_path), "a.png", ["é"]) == ()
    assert edit_captions(settings(tmp_path), "b.png", ["z", "w"]) == ("x", "y")
    assert (tmp_path / "metadata.jsonl").read_text().splitlines() == [
        '{"file_name": "a.png", "text": "é"}',
        '{"file_name": "b.png", "n": 1.5, "text": ["z", "w"]}',
    ]


def test_edits_beside_the_data_count_for_their_picture_only(tmp_path: Path) -> None:
    drawn.idx(tmp_path, 3)
    name = "train-images-idx3-ubyte.gz row 1"
    edit_captions(settings(tmp_path), name, ["trousers"])
    assert read(tmp_path).items[1].captions == ("trousers",)
    drawn.idx(tmp_path, 3, side=16)
    assert read(tmp_path).items[1].captions == ("Trouser",)
    (tmp_path / "captions.json").write_text('{"version": 2, "captions": {}}')
    with pytest.raises(DatasetError, match="version 2"):
        read(tmp_path)
    (tmp_path / "captions.json").write_text('{"captions": [1]}')
    with pytest.raises(DatasetError, match=r"captions\.json"):
        read(tmp_path)


@pytest.mark.parametrize("texts", [["a\nb"], ["a\0b"], ["x" * 10_001], ["x"] * 65, ["\ud800"]])
def test_captions_that_no_file_can_hold_are_refused(texts: list[str], tmp_path: Path) -> None:
    drawn.folder(tmp_path, 2)
    before = snapshot(tmp_path)
    with pytest.raises(InvalidRequest):
        edit_captions(settings(tmp_path), "000.png", texts)
    assert snapshot(tmp_path) == before


def test_where_captions_come_from(tmp_path: Path) -> None:
    drawn.save(tmp_path / "0012-red_fox (2).png", 1).with_suffix(".txt").write_text("stored")
    drawn.save(tmp_path / "123.png", 2)
    assert [item.captions for item in read(tmp_path).items] == [("stored",), ("",)]
    assert [item.captions for item in read(tmp_path, caption_source="file_name").items] == [("red fox",), ("",)]
    assert [item.captions for item in read(tmp_path, caption_source="none").items] == [("",), ("",)]
    drawn.parquet(tmp_path / "p", 2)
    with pytest.raises(DatasetError, match="no file names"):
        read(tmp_path / "p", caption_source="file_name")


def test_the_digest_follows_pictures_captions_and_repeats(tmp_path: Path) -> None:
    drawn.folder(tmp_path, 3)
    first = read(tmp_path).digest
    assert read(tmp_path).digest == first
    assert read(tmp_path, repeats=2).digest != first
    (tmp_path / "000.txt").write_text("other")
    second = read(tmp_path).digest
    drawn.save(tmp_path / "000.png", 77)
    assert len({first, second, read(tmp_path).digest}) == 3


@pytest.mark.parametrize("path", ["a\0b", "x" * 4000, "a/" * 2000])
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(DatasetError, match=r"no path|no data set"):
        read_dataset(DatasetSettings(path=path))


@pytest.mark.parametrize("path, said", [("", "empty"), ("no/such/folder", "no data set"), ("empty", "Looked for")])
def test_where_there_is_nothing_the_message_says_what_was_looked_for(path: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError) as caught:
        read_dataset(DatasetSettings(path=str(tmp_path / path) if path else ""))
    assert said in caught.value.message
    if path == "empty":
        assert all(FORMATS.get(name).looks_for in caught.value.message for name in FORMATS.names())


def test_a_format_that_there_is_not(tmp_path: Path) -> None:
    drawn.folder(tmp_path)
    with pytest.raises(UnknownName, match="parquet"):
        read(tmp_path, format="parket")
    with pytest.raises(DatasetError, match="Looked for: train-images"):
        read(tmp_path, format="idx")


def test_a_packed_data_set_says_how_it_is_unpacked(tmp_path: Path) -> None:
    pack = drawn.zipped(drawn.folder(tmp_path / "a"), tmp_path / "a.zip")
    with pytest.raises(DatasetError, match=r"launch\.py dataset"):
        read(pack)


def test_a_picture_that_changed_or_went_is_an_error_that_names_it(tmp_path: Path) -> None:
    drawn.folder(tmp_path, 2)
    item = read(tmp_path).items[0]
    drawn.save(tmp_path / "000.png", 55)
    with pytest.raises(TrainingError, match=r"000\.png has changed"):
        item.picture()
    (tmp_path / "000.png").unlink()
    with pytest.raises(TrainingError, match=r"000\.png cannot be read"):
        item.picture()


def test_names_that_a_shell_would_run_are_names(tmp_path: Path) -> None:
    hostile = tmp_path / "a; touch PWN $(touch PWN)"
    drawn.folder(hostile, 2)
    assert len(read(hostile).items) == 2
    assert not (tmp_path / "PWN").exists()
    assert not Path("PWN").exists()


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    drawn.folder(tmp_path / "in", 1)
    drawn.folder(tmp_path / "out", 2)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "out")
    assert [item.name for item in read(tmp_path / "in").items] == ["000.png"]


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    drawn.folder(tmp_path, 1)
    try:
        Path(str(tmp_path).encode().decode(), b"\xff.png".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    found = read(tmp_path)
    assert len(found.items) == 1
    assert "no UTF-8" in found.problems[0]
    found.problems[0].encode()


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    read_dataset(settings(drawn.folder(tmp_path, 3)), lambda done, total: said.append((done, total)))
    assert said == [(1, 3), (2, 3), (3, 3)]


def test_reading_again_reads_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.folder(tmp_path, 2)
    first = read(tmp_path)
    monkeypatch.setattr(Image, "open", None)
    assert read(tmp_path) == first


def test_a_row_group_larger_than_memory_should_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.parquet(tmp_path, 4, shards=1)
    monkeypatch.setattr(parquet, "MAX_CHUNK", 1000)
    with pytest.raises(DatasetError, match="row group"):
        read(tmp_path)


TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40).map(
    lambda text: " ".join(text.split())
)


@settings_of(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=5), edit=TEXTS, data=st.data(), kind=st.sampled_from(["jsonl", "csv"])
)
def test_any_caption_in_any_row_of_a_table(
    texts: list[str], edit: str, data: st.DataObject, kind: str, tmp_path: Path
) -> None:
    """What a table holds is what was written by the library's own writers, before and after an edit of one row."""
    root = tmp_path / os.urandom(6).hex()
    drawn.save(root / "a.png", 1)
    rows = [{"file_name": "a.png", "text": text, "n": str(number)} for number, text in enumerate(texts)]
    if kind == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, ["file_name", "text", "n"])
            writer.writeheader()
            writer.writerows(rows)
    assert [item.captions[0] for item in read(root).items] == texts
    at = data.draw(st.integers(0, len(texts) - 1))
    former = edit_captions(settings(root), "a.png" if at == 0 else f"a.png#{at + 1}", [edit])
    assert former == ((texts[at],) if texts[at] else ())
    expected = [*texts[:at], edit, *texts[at + 1 :]]
    assert [item.captions[0] for item in read(root).items] == expected
