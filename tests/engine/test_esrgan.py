"""Upscaler models against spandrel's, in every layout of names; see `tests/vectors/upscalers`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.engine.esrgan import load_upscaler
from studio.errors import DamagedFile, IncompatibleFile
from tests.vector_files import vector_path

CPU = torch.device("cpu")
FOLDER = vector_path("upscalers/answers.safetensors").parent
ANSWERS = load_file(FOLDER / "answers.safetensors")
NAMES = sorted({key.partition(".")[0] for key in ANSWERS})


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_gives_what_the_reference_gives(name: str) -> None:
    module, times = load_upscaler(FOLDER / f"{name}.safetensors", CPU)
    picture, expected = ANSWERS[f"{name}.input"], ANSWERS[f"{name}.output"]
    assert times == expected.shape[1] // picture.shape[1]
    torch.testing.assert_close(module(picture[None])[0], expected, rtol=0, atol=1e-5)


def test_every_layout_is_among_them() -> None:
    assert {name.partition("-")[0] for name in NAMES} == {"old", "middle", "new", "compact"}


@torch.no_grad()
def test_a_picture_of_one_pixel_has_nothing_to_mirror() -> None:
    module, times = load_upscaler(FOLDER / "new-1x.safetensors", CPU)
    assert module(torch.rand(1, 3, 1, 2)).shape == (1, 3, times, 2 * times)


def test_what_is_no_upscaler_or_damaged_is_refused(tmp_path: Path) -> None:
    state = load_file(FOLDER / "compact-2x.safetensors")
    save_file({key: state[key] for key in state if key != "body.0.bias"}, tmp_path / "part.safetensors")
    with pytest.raises(IncompatibleFile, match=r"part.safetensors cannot be used: .* lacks body.0.bias"):
        load_upscaler(tmp_path / "part.safetensors", CPU)
    save_file({**state, "body.2.weight": torch.zeros(4, 5, 3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises(IncompatibleFile, match=r"body.2.weight is \[4, 5, 3, 3\], expected \[4, 4, 3, 3\]"):
        load_upscaler(tmp_path / "odd.safetensors", CPU)
    state["body.2.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(DamagedFile, match="no finite numbers"):
        load_upscaler(tmp_path / "nan.safetensors", CPU)
