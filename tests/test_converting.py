"""Converting from outside: the command, the file it finds, what it leaves alone. Each file costs a process, so there are few."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import converting
from studio.cli import main
from studio.converting import convert, find_pickle
from studio.errors import DamagedFile, EngineError, IncompatibleFile, InvalidRequest, NotFound
from studio.paths import Paths
from tests.conversion.corpus import in_zip, payloads


def no_server(arguments: argparse.Namespace) -> int:
    raise AssertionError("the server was started")


def test_one_file_is_refused_and_the_other_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tmp_path)
    paths.checkpoints.mkdir()
    canary = tmp_path / "PWNED"
    in_zip(payloads(canary)["os.system"][0], paths.checkpoints / "evil.ckpt")
    torch.save({"state_dict": {"b": torch.ones(4), "a": torch.zeros(2, dtype=torch.float16)}}, tmp_path / "good one.pt")
    before = (tmp_path / "good one.pt").read_bytes()
    (tmp_path / "out").mkdir()
    words = ["convert", "evil.ckpt", str(tmp_path / "good one.pt"), "--out", str(tmp_path / "out")]
    assert main([*words, "--data-dir", str(tmp_path)], serve=no_server) == 2
    told = capsys.readouterr()
    assert "error: evil.ckpt names " in told.err and ".system, which no model needs" in told.err
    assert "good one.safetensors  model of another kind, 2 tensors" in told.out
    assert not canary.exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good one.safetensors"]
    assert load_file(tmp_path / "out" / "good one.safetensors")["a"].dtype == torch.float16
    assert (tmp_path / "good one.pt").read_bytes() == before


@pytest.mark.parametrize(
    "words, said",
    [
        (["none.ckpt"], "There is no file 'none.ckpt'"),
        (["a.safetensors"], "'a.safetensors' cannot be converted: files that end in .ckpt, .pt, .pth, .bin can."),
        (["twice.pt"], "There are several files 'twice.pt'"),
        (["x.ckpt", "--out", "nowhere"], "There is no folder 'nowhere'"),
    ],
)
def test_what_is_asked_for_wrongly_ends_with_2(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (Paths(tmp_path).loras, Paths(tmp_path).embeddings):
        folder.mkdir()
        (folder / "twice.pt").write_bytes(b"x")
    assert main(["convert", *words, "--data-dir", str(tmp_path)], serve=no_server) == 2
    assert said in capsys.readouterr().err


def test_a_name_is_looked_for_among_the_models(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    file = paths.hypernetworks / "deep" / "old.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert find_pickle("old.pt", paths) == file
    assert find_pickle(str(file), Paths(tmp_path / "elsewhere")) == file
    with pytest.raises(NotFound):
        find_pickle("deep/old.pt", paths)


def writes(data: bytes) -> tuple[str, ...]:
    """A child that writes `data` and says that it holds one tensor."""
    import sys

    return (sys.executable, "-c", f"import sys; open(sys.argv[2], 'wb').write({data!r}); print('{{\"tensors\": 1}}')")


def test_an_existing_file_is_left_alone_without_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "made")
    monkeypatch.setattr(converting, "COMMAND", writes((tmp_path / "made").read_bytes()))
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match="exists already"):
        convert(tmp_path / "a.pt")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    assert convert(tmp_path / "a.pt", force=True).tensors == 1
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "made").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "a.safetensors", "made"]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "made")
    *command, program = writes((tmp_path / "made").read_bytes())
    meanwhile = f"open({str(tmp_path / 'a.safetensors')!r}, 'w').write('mine'); "
    monkeypatch.setattr(converting, "COMMAND", (*command, meanwhile + program))
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(InvalidRequest, match="exists already"):
        convert(tmp_path / "a.pt")
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_a_child_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "two")
    for data in (b"", b"nonsense nonsense", (tmp_path / "two").read_bytes()):
        monkeypatch.setattr(converting, "COMMAND", writes(data))
        with pytest.raises(DamagedFile):
            convert(tmp_path / "a.pt")
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    "program, said",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by the system"),
        ("import sys; sys.exit('it broke')", "ended with 1. it broke"),
        ("print('[]')", "ended with 0"),
    ],
)
def test_a_child_that_dies_is_told(program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "a.pt").write_bytes(b"\x80\x02.")
    monkeypatch.setattr(converting, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(EngineError, match=said):
        convert(tmp_path / "a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_safetensors_file_under_another_name_is_told(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.ckpt")
    with pytest.raises(IncompatibleFile, match=r"a\.ckpt is no pickle: it is a \.safetensors file already"):
        convert(tmp_path / "a.ckpt")
