"""Which files restore faces, by what they hold, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import IncompatibleFile, UnknownModel
from studio.library import Library
from studio.paths import Paths
from studio.schema.faces import FacePlan
from tests.engine.faces.made import made_file
from tests.tiny_models import tiny_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Paths(tmp_path).face_restoration


def plan(folder: Path, name: str = "GFPGAN", weight: float = 0.2) -> FacePlan:
    return Library(Paths(folder.parent)).face_plan(name, weight)


def test_files_are_known_by_what_they_hold(folder: Path) -> None:
    detector = made_file(folder, "RetinaFace", "whatever", "module.")
    for name in ("GFPGANv1.3", "GFPGANv1.10", "GFPGANv1.4"):
        made_file(folder, "GFPGAN", name)
    (folder / "damaged.safetensors").write_bytes(b"no header")
    (folder / "other.safetensors").write_bytes(tiny_file("sd1").read_bytes())
    latest = folder / "GFPGANv1.10.safetensors"
    facts = {"architecture": "GFPGAN", "detector": str(detector), "weight": 0.5}  # only CodeFormer has one
    assert plan(folder, "gfpgan").model_dump() == {"name": "GFPGAN", "file": str(latest), **facts}
    named = {"name": "GFPGANv1.3", "file": str(folder / "GFPGANv1.3.safetensors"), **facts}
    assert plan(folder, "gfpganv1.3").model_dump() == plan(folder, "GFPGANv1.3.safetensors").model_dump() == named
    assert plan(folder, "GFPGANv1.10").name == "GFPGAN"
    names = Library(Paths(folder.parent)).face_restorers()
    assert names == ["GFPGAN", "GFPGANv1.4", "GFPGANv1.3"]
    for wrong in ("whatever", "other", "nothing"):
        with pytest.raises(UnknownModel, match=f"no face restorer named '{wrong}'") as caught:
            plan(folder, wrong)
        assert caught.value.field == "face_restoration"


@pytest.mark.parametrize(
    "name, there, words",
    [
        ("GFPGAN", [], ["lacks GFPGAN", "put GFPGANv1.4.safetensors into", "GFPGANv1.4.pth at https://github.com/TencentARC"]),
        ("CodeFormer", ["GFPGAN"], ["lacks CodeFormer", "put codeformer.safetensors into", "Or choose GFPGAN, which is there"]),
        ("GFPGAN", ["GFPGAN"], ["lacks the network that finds the faces", "put detection_Resnet50_Final.safetensors into"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_place(folder: Path, name: str, there: list[str], words: list[str]) -> None:
    for network in there:
        made_file(folder, network, "here")
    with pytest.raises(UnknownModel) as caught:
        plan(folder, name)
    assert all(word in caught.value.message for word in [*words, str(folder), "launch.py convert"])
    assert caught.value.field == "face_restoration"


@pytest.mark.parametrize(
    "name, pickle",
    [("GFPGAN", "GFPGANv1.3.pth"), ("GFPGAN", "detection_Resnet50_Final.pth"), ("CodeFormer", "codeformer-v0.1.0.pth")],
)
def test_a_pickle_is_never_taken(folder: Path, name: str, pickle: str) -> None:
    if pickle.startswith("det"):
        made_file(folder, "GFPGAN", "here")
    folder.mkdir(exist_ok=True)
    (folder / pickle).touch()
    with pytest.raises(IncompatibleFile) as caught:
        plan(folder, name)
    assert pickle in caught.value.message and "launch.py convert" in caught.value.message
