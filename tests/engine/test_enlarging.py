"""Enlarging by a model: tile by tile, as often as it takes, brought to the size, told, left half-way."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from studio.engine.enlarging import OVERLAP, TILE, Enlarging, Teller, UpscalerModel, enlarged_picture
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.errors import EngineError, NotFound
from studio.schema.models import ModelInfo
from studio.upscalers import tile_starts
from tests.engine.test_tiles import noise
from tests.vector_files import vector_path

S, T = TypeVar("S"), TypeVar("T")
FOLDER = vector_path("upscalers/answers.safetensors").parent


def info(name: str, folder: Path = FOLDER) -> ModelInfo:
    path = folder / f"{name}.safetensors"
    return ModelInfo(kind="upscaler", name=name, path=str(path), layout="file", family="unknown", size=1, mtime=0)


def done(work: Generator[S, None, T]) -> tuple[T, list[S]]:
    """What it gives in the end, and all that it says before."""
    said = []
    while True:
        try:
            said.append(next(work))
        except StopIteration as end:
            return end.value, said


def model(name: str) -> UpscalerModel:
    return UpscalerModel(info(name), torch.device("cpu"))


def pixels(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture).astype(int)


def test_a_small_picture_is_one_tile_shown_blue_first() -> None:
    answers = load_file(FOLDER / "answers.safetensors")
    sample, expected = answers["compact-4x.input"], answers["compact-4x.output"]
    rounded = (sample * 255).round().to(torch.uint8)
    picture = Image.fromarray(rounded.permute(1, 2, 0).numpy()[..., ::-1].copy())
    found, said = done(model("compact-4x").run(picture))
    assert said == [Enlarging(1, 1, "compact-4x")]
    wanted = (expected.clamp(0, 1) * 255).permute(1, 2, 0).numpy()[..., ::-1]
    assert np.abs(pixels(found) - wanted).mean() < 2, "the input was rounded to 8 bits"


def test_a_large_picture_is_many_that_overlap() -> None:
    """Where one tile alone decides, and beyond the reach of its edges, it is what the model makes of the whole."""
    picture = noise(TILE + 50, 40)
    upscaler = model("compact-2x")
    found, said = done(upscaler.run(picture))
    assert [state.total for state in said] == [2, 2]
    whole = pixels(upscaler._tile(picture))
    assert tile_starts(TILE + 50, TILE, OVERLAP) == [0, 50]
    first, second = slice(0, 2 * 50), slice(2 * (TILE + 4), None)
    for part in (first, second):
        assert np.array_equal(pixels(found)[:, part], whole[:, part])
    assert np.abs(pixels(found) - whole)[:, first.stop : second.start].max() > 1, "the edges of tiles show somewhere"


@pytest.mark.parametrize(
    "size, always, sizes",
    [
        ((15, 12), False, [(5, 4)]),  # 4x for 3x: once
        ((5, 4), False, []),
        ((5, 4), True, [(5, 4)]),
        ((6, 4), False, [(5, 4)]),
        ((80, 64), False, [(5, 4), (20, 16)]),
        ((81, 40), False, [(5, 4), (20, 16), (80, 64)]),
        ((400, 300), False, [(5, 4), (20, 16), (80, 64)]),
    ],
)
def test_it_is_applied_until_the_size_is_reached(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], always: bool, sizes: list[tuple[int, int]]
) -> None:
    given = []

    def run(self: UpscalerModel, picture: Image.Image) -> Generator[Enlarging, None, Image.Image]:
        given.append(picture.size)
        yield Enlarging(1, 1, "x")
        return picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST)

    upscaler = model("compact-4x")
    monkeypatch.setattr(UpscalerModel, "run", run)
    picture = noise(5, 4)
    found, _ = done(enlarged_picture(picture, size, "compact-4x", upscaler, at_least_once=always))
    assert given == sizes
    assert found.size == size
    factor = 4 ** len(sizes)
    large = picture.resize((5 * factor, 4 * factor), Image.Resampling.NEAREST)
    assert np.array_equal(pixels(found), pixels(large.resize(size, Image.Resampling.LANCZOS)))


def test_one_that_does_not_enlarge_is_applied_once() -> None:
    found, said = done(enlarged_picture(noise(20, 14), (40, 28), "compact-1x", model("compact-1x")))
    assert len(said) == 1 and found.size == (40, 28)


def test_no_numbers_are_told(tmp_path: Path) -> None:
    state = load_file(FOLDER / "compact-2x.safetensors")
    state["body.0.weight"] = torch.full_like(state["body.0.weight"], 3e38, dtype=torch.float32)
    save_file(state, tmp_path / "wild.safetensors")
    wild = UpscalerModel(info("wild", tmp_path), torch.device("cpu"))
    with pytest.raises(EngineError, match="wild gave no numbers"):
        done(wild.run(noise(8, 8)))


def test_it_is_told_once_a_second_and_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def work() -> Generator[Enlarging, None, str]:
        for number in range(5):
            yield Enlarging(number + 1, 5, "big")
            now[0] += 0.4
        return "picture"

    found, said = done(Teller().told(work(), lambda: False))
    assert found == "picture"
    assert [status.message for status in said] == ["Enlarging with big: 1 of 5", "Enlarging with big: 4 of 5"]
    nothing, said = done(Teller().told(work(), lambda: now[0] > 102.5))
    assert nothing is None
    assert [status.message for status in said] == ["Enlarging with big: 1 of 5"]


def test_one_model_is_kept_and_read_again_when_its_file_changes(tmp_path: Path) -> None:
    for name in ("compact-2x", "compact-1x"):
        (tmp_path / f"{name}.safetensors").write_bytes((FOLDER / f"{name}.safetensors").read_bytes())
    keeper = ModelKeeper(choose_hardware("cpu", precision="fp32"))
    two, one = (info(name, tmp_path) for name in ("compact-2x", "compact-1x"))
    first = keeper.upscaler(two)
    assert keeper.upscaler(two) is first
    keeper.upscaler(one)
    second = keeper.upscaler(two)
    assert second is not first, "only the last one stays"
    save_file(load_file(FOLDER / "new-2x.safetensors"), tmp_path / "compact-2x.safetensors")
    assert keeper.upscaler(two) is not second
    (tmp_path / "compact-1x.safetensors").unlink()
    with pytest.raises(NotFound, match="compact-1x is gone"):
        keeper.upscaler(one)
