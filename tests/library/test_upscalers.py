"""Upscaler models in the library: what is listed, and the names that find them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.errors import IncompatibleFile, UnknownName
from studio.library import Library
from studio.paths import Paths
from studio.upscalers import SHOWN, find_upscaler, shown_name, stems_of
from tests.library.models import LORA, save
from tests.vector_files import vector_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Paths(tmp_path).upscalers
    (made / "real").mkdir(parents=True)
    shutil.copy(vector_path("upscalers/old-4x.safetensors"), made / "4x-UltraSharp.safetensors")
    shutil.copy(vector_path("upscalers/new-4x.safetensors"), made / "real" / "RealESRGAN_x4plus.safetensors")
    save(made / "style.safetensors", LORA)
    (made / "RealESRGAN_x2plus.pth").write_bytes(b"\x80\x04.")
    return made


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    made = Library(Paths(folder.parent))
    yield made
    made.close()


def test_what_is_listed(library: Library) -> None:
    found = {info.name: info for info in library.upscalers()}
    assert list(found) == ["4x-UltraSharp", "real/RealESRGAN_x4plus", "RealESRGAN_x2plus", "style"]
    sharp = found["4x-UltraSharp"]
    assert (sharp.kind, sharp.enlarges, sharp.problem) == ("upscaler", 4, None)
    assert "launch.py convert RealESRGAN_x2plus.pth" in (found["RealESRGAN_x2plus"].problem or "")
    assert "no upscaler of a kind" in (found["style"].problem or "")
    assert library.checkpoints() == [info for info in library.checkpoints() if info.name != "4x-UltraSharp"]


@pytest.mark.parametrize("name", ["real/RealESRGAN_x4plus", "RealESRGAN_x4plus", "R-ESRGAN 4x+", "r-esrgan 4X+ "])
def test_both_names_find_it(library: Library, name: str) -> None:
    row, info = find_upscaler(name, library, "hires.upscaler")
    assert row.name == "real/RealESRGAN_x4plus"
    assert row.latents is None
    assert info is not None and info.short_hash


def test_a_row_of_the_table_is_no_file(library: Library, folder: Path) -> None:
    shutil.copy(folder / "4x-UltraSharp.safetensors", folder / "Lanczos.safetensors")
    library.refresh()
    assert find_upscaler("lanczos", library, "x") == (find_upscaler("Lanczos", library, "x")[0], None)


def test_what_is_not_there_or_no_use_is_told(library: Library) -> None:
    with pytest.raises(
        UnknownName, match=r"There is no upscaler named '4x-UltraSharpe'. Did you mean '?4x-UltraSharp"
    ) as caught:
        find_upscaler("4x-UltraSharpe", library, "hires.upscaler")
    assert caught.value.field == "hires.upscaler"
    with pytest.raises(IncompatibleFile, match=r"'RealESRGAN_x2plus' cannot be used: .* pickle") as refused:
        find_upscaler("R-ESRGAN 2x+", library, "hires.upscaler")
    assert refused.value.field == "hires.upscaler"


def test_a_new_file_counts_when_it_is_asked_for(library: Library, folder: Path) -> None:
    library.upscalers()
    shutil.copy(folder / "4x-UltraSharp.safetensors", folder / "later.safetensors")
    assert library.upscaler("later").enlarges == 4


def test_a1111s_names_go_both_ways() -> None:
    for stem, shown in SHOWN.items():
        assert shown_name(f"sub/{stem}") == shown
        assert stem in stems_of(shown)
    assert shown_name("sub/4x-UltraSharp") == "4x-UltraSharp"
    assert shown_name("Lanczos") == "Lanczos"
    assert stems_of("4x-UltraSharp") == []
    assert (stems_of("ESRGAN_4x"), shown_name("ESRGAN")) == (["ESRGAN"], "ESRGAN"), (
        "a file of either name is found again"
    )
