"""Where the tiny autoencoder is looked for, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.errors import IncompatibleFile, UnknownModel
from studio.library import Library
from studio.paths import Paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Paths(tmp_path).vae_approx
    made.mkdir()
    return made


def touch(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def test_the_half_counts_more_than_the_whole(folder: Path) -> None:
    library = Library(Paths(folder.parent))
    for name in ("taesd/diffusion_pytorch_model.safetensors", "taesd.safetensors", "taesd_decoder.safetensors"):
        path = touch(folder / name)
        assert library.tiny_vae("sd", "decoder") == path
    assert library.tiny_vae("sd", "encoder") == folder / "taesd.safetensors"
    with pytest.raises(UnknownModel):
        library.tiny_vae("sdxl", "encoder")
    path = touch(folder / "taesdxl_encoder.safetensors")
    assert library.tiny_vae("sdxl", "encoder") == path


def test_what_is_missing_is_named_with_its_place(folder: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        Library(Paths(folder.parent)).tiny_vae("sdxl", "encoder")
    for words in (
        "taesdxl_encoder.safetensors",
        str(folder),
        "taesdxl/diffusion_pytorch_model.safetensors",
        "huggingface.co/madebyollin/taesdxl",
    ):
        assert words in caught.value.message
    assert caught.value.field == "vae_encoder"


@pytest.mark.parametrize("name", ["taesd_decoder.pth", "taesd/diffusion_pytorch_model.bin"])
def test_a_pickle_is_never_taken(folder: Path, name: str) -> None:
    touch(folder / name)
    library = Library(Paths(folder.parent))
    with pytest.raises(IncompatibleFile) as caught:
        library.tiny_vae("sd", "decoder")
    assert (
        f"convert {Path(name).name} writes" in caught.value.message
        and "put taesd_decoder.safetensors there" in caught.value.message
    )
    path = touch(folder / "taesd_decoder.safetensors")
    assert library.tiny_vae("sd", "decoder") == path
