"""`dataset PATH`: the report, its JSON, ZIP files, captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.cli import main
from studio.schema.training_data import DatasetReport
from tests.cli.test_command_line import no_server
from tests.training.data import drawn


def ask(tmp_path: Path, *words: str) -> int:
    return main(["dataset", *words, "--data-dir", str(tmp_path / "data")], serve=no_server)


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn.folder(tmp_path / "set", 3)
    (root / "broken.png").write_bytes(b"x")
    drawn.save(root / "same.png", 0)
    assert ask(tmp_path, str(root), "--epochs", "10", "--batch", "2", "--seconds-per-step", "3") == 0
    shown = capsys.readouterr().out
    assert "pictures    4" in shown
    assert "48x48: 4" in shown
    assert "20 steps, about 1 min 0 s" in shown
    assert "unusable    broken.png is no picture that can be read" in shown
    assert "same        000.png = same.png" in shown
    assert "no caption  same.png" in shown


def test_json_is_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn.kohya(tmp_path / "set")
    assert ask(tmp_path, str(root), "--json", "--repeats", "2", "--resolution", "64", "--trigger", "sks") == 0
    report = DatasetReport.model_validate_json(capsys.readouterr().out)
    assert (report.format, report.expectation.samples) == ("kohya", 42)
    assert (report.buckets[0].width, report.enlarged) == (64, 3)


def test_a_zip_is_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = drawn.zipped(drawn.flickr8k(tmp_path / "set"), tmp_path / "flickr.zip")
    assert ask(tmp_path, str(pack), "--json") == 0
    output = capsys.readouterr()
    assert f"unpacked to {tmp_path / 'data' / 'datasets' / 'flickr'}" in output.err
    assert "left out" not in output.err
    assert json.loads(output.out)["captions"] == 15


def test_what_stays_in_a_zip_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn.flickr8k(tmp_path / "set")
    for number in range(12):
        (root / f"shot-{number:02}.cr2").write_bytes(b"raw")
    assert ask(tmp_path, str(drawn.zipped(root, tmp_path / "flickr.zip"))) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum(".cr2" in line and "left out" in line for line in said) == 10
    assert "and 2 more" in said


def test_captions_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn.save(tmp_path / "set" / "0001-red_fox.png", 1)
    assert ask(tmp_path, str(tmp_path / "set"), "--caption", "file-name") == 0
    assert "captions written: 1, kept: 0" in capsys.readouterr().err
    assert (tmp_path / "set" / "0001-red_fox.txt").read_text() == "red fox\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere"], "no data set"),
        (["set", "--format", "parket"], "'parquet'"),
        (["set", "--resolution", "20"], "resolution = '20'"),
        (["set", "--epochs", "0"], "epochs = 0"),
        (["set", "--caption", "magic"], "'magic'"),
        (["set", "--caption", "blip"], "Salesforce/blip-image-captioning-base"),
    ],
)
def test_what_is_not_possible_ends_with_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn.folder(tmp_path / "set", 2)
    monkeypatch.chdir(tmp_path)
    assert ask(tmp_path, *words) == 2
    assert said in capsys.readouterr().err
