"""No file of the corpus runs anything, in whatever format, and each refusal tells why."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from studio.conversion.unpickling import ParameterDict, load
from studio.errors import DamagedFile, IncompatibleFile, NotAllowed
from tests.conversion.corpus import FORMATS, LIGHTNING, in_tar, packed, payloads, with_stand_in

TRICKS = tuple(payloads(Path("x")))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("trick", TRICKS)
def test_a_file_with_code_is_refused_by_its_name(form: str, trick: str, tmp_path: Path) -> None:
    canary, file = tmp_path / "PWNED", tmp_path / "model.ckpt"
    thing, name = payloads(canary)[trick]
    FORMATS[form](thing, file)
    with pytest.raises(NotAllowed) as caught:
        load(file)
    assert not canary.exists()
    assert caught.value.message.startswith(f"model.ckpt names {name}")


@pytest.mark.parametrize("new", [True, False])
def test_honest_files_are_read(new: bool, tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    torch.save(
        {"state_dict": {"a": shared, "b": shared[2:]}, "n": 3}, tmp_path / "a.pt", _use_new_zipfile_serialization=new
    )
    found = load(tmp_path / "a.pt")
    assert torch.equal(found["state_dict"]["b"], shared[2:])
    assert found["n"] == 3


def test_a_file_that_was_packed_anew_is_read_and_not_mapped(tmp_path: Path) -> None:
    packed(torch.arange(4000.0), tmp_path / "a.pt")
    assert torch.equal(load(tmp_path / "a.pt")["state_dict"]["b"], torch.arange(4000.0))


def test_the_first_checkpoints_name_a_class_that_is_not_needed(tmp_path: Path) -> None:
    """As `(ModelCheckpoint, 5)`: it can stand anywhere and does nothing."""
    with_stand_in(tmp_path / "a.ckpt", b"K\x05\x86")
    found = load(tmp_path / "a.ckpt")
    assert found[1] == 5 and type(found[0]).__name__ == "_Named"


@pytest.mark.parametrize(
    "after",
    [b")R", b")\x81", b"}b", b"(X\x01\x00\x00\x00aK\x01ub", b"X\x01\x00\x00\x00aK\x01s", b"K\x01a"],
    ids=["called", "made", "given a state", "given items", "given an item", "appended to"],
)
def test_nothing_can_be_done_with_that_class(after: bytes, tmp_path: Path) -> None:
    with_stand_in(tmp_path / "a.ckpt", after)
    with pytest.raises(DamagedFile):
        load(tmp_path / "a.ckpt")


def test_an_embedding_of_2022_keeps_its_vectors_and_nothing_else(tmp_path: Path) -> None:
    vectors = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 768))})
    torch.save({"string_to_param": vectors}, tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")["string_to_param"]
    assert type(found) is ParameterDict and list(found.parameters) == ["*"]
    assert not hasattr(found, "__dict__")


def test_other_classes_of_lightning_are_not_known(tmp_path: Path) -> None:
    with_stand_in(tmp_path / "a.ckpt", b"", f"{LIGHTNING}\nOther")
    with pytest.raises(NotAllowed, match=r"a\.ckpt names pytorch_lightning\.callbacks\.model_checkpoint\.Other"):
        load(tmp_path / "a.ckpt")


def test_what_is_no_pickle_says_so(tmp_path: Path) -> None:
    for name, data in {"text.pt": b"hello there", "empty.pt": b"", "zip.pt": b""}.items():
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "b")
    for name in ("text.pt", "empty.pt", "zip.pt"):
        with pytest.raises(DamagedFile, match=f"{name} is no pickled model, or is damaged"):
            load(tmp_path / name)


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-300])
    with pytest.raises(DamagedFile, match="damaged"):
        load(tmp_path / "a.pt")


def test_the_format_before_2017_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    in_tar({}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFile, match=r"a\.pt is in the \.tar format of torch before 2017"):
        load(tmp_path / "a.pt")


def test_a_program_of_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"\x80\x02).")
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/version", b"3\n")
    with pytest.raises(IncompatibleFile, match="TorchScript"):
        load(tmp_path / "a.pt")
