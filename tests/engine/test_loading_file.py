"""Tensors by plain reads: safetensors' own reader and torch's own casts are the oracle, bit for bit; files that change or end early are told."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import studio.engine.loading_file as loading_file
from studio.engine.loading_file import PIECE, TensorFile
from studio.engine.loading_room import BLOCK, Room
from studio.engine.loading_weights import Weights
from studio.errors import DamagedFile, IncompatibleFile, NotFound
from studio.families.layout import Source

LAYOUTS = (torch.contiguous_format, torch.channels_last)
STORED = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
WANTED = (torch.float32, torch.float16, torch.bfloat16)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Of all sizes, with a minus zero and some that are subnormal in float16."""
    drawn = torch.Generator().manual_seed(seed)
    found = torch.randn(shape, generator=drawn) * torch.logspace(-7, 1, shape[0] if shape else 1).view(
        -1, *[1] * (len(shape) - 1)
    )
    found.view(-1)[0] = -0.0
    return found


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros of both signs differ here."""
    return tensor.reshape(-1).view(torch.uint8)


def weights(tmp_path: Path, **tensors: torch.Tensor) -> Weights:
    save_file(tensors, tmp_path / "w.safetensors")
    return Weights([tmp_path / "w.safetensors"])


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_every_number_format_becomes_every_other_as_torch_casts_it(tmp_path: Path, stored: torch.dtype) -> None:
    shapes = {"conv": (7, 40, 3, 3), "flat": (5, 3, 1, 1), "one": (9, 1, 3, 3), "long": (3, PIECE + 5), "row": (11,)}
    tensors = {name: numbers(*shape).to(stored) for name, shape in shapes.items()}
    file = weights(tmp_path, **tensors)
    for name, tensor in load_file(tmp_path / "w.safetensors").items():
        for dtype in WANTED:
            for layout in LAYOUTS:
                place = Room().take(tensor.shape, dtype, layout)
                file.read(Source(name), place)
                assert torch.equal(bits(place), bits(tensor.to(dtype))), (name, dtype, layout)


def test_many_pieces_make_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last piece is smaller, and for a layout that takes every piece apart."""
    tensor = numbers(101, 6, 3, 3).half()
    file = weights(tmp_path, x=tensor)
    for size in (1, 54, 200, 54 * 101):
        monkeypatch.setattr(loading_file, "PIECE", size)
        for layout in LAYOUTS:
            for dtype in (torch.float16, torch.bfloat16):
                place = Room().take(tensor.shape, dtype, layout)
                file.read(Source("x"), place)
                assert torch.equal(bits(place), bits(tensor.to(dtype)))


def test_parts_and_other_views_of_what_is_stored(tmp_path: Path) -> None:
    fused, scalar = numbers(12, 5).half(), torch.tensor(8.0)
    file = weights(
        tmp_path,
        fused=fused,
        scalar=scalar,
        count=torch.tensor([3]),
        eight=numbers(4).to(torch.float8_e4m3fn),
        flat=numbers(4, 6),
    )
    for third in range(3):
        assert torch.equal(file.tensor(Source("fused", third)), fused[third * 4 : third * 4 + 4])
    assert torch.equal(file.tensor(Source("fused", transposed=True)), fused.T)
    assert torch.equal(file.tensor(Source("fused", 1, transposed=True)), fused[4:8].T)
    assert file.tensor(Source("scalar")).shape == ()
    assert file.tensor(Source("scalar")) == 8
    assert file.tensor(Source("count")).tolist() == [3]
    assert file.tensor(Source("eight")).dtype == torch.float8_e4m3fn
    place = torch.empty(4, 6, 1, 1)
    file.read(Source("flat"), place)
    assert torch.equal(place[:, :, 0, 0], numbers(4, 6))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, PIECE, -1])
def test_the_sum_is_not_finite_when_one_number_is_not(tmp_path: Path, bad: float, where: int) -> None:
    tensor = torch.ones(3, PIECE).half()
    tensor.view(-1)[where] = bad
    file = weights(tmp_path, x=tensor, y=torch.ones(3, PIECE).half())
    for dtype in WANTED:
        assert not file.read(Source("x"), torch.empty(3, PIECE, dtype=dtype)).isfinite()
        assert (
            file.read(Source("y"), torch.empty(3, PIECE, dtype=dtype)) == pytest.approx(3 * PIECE, rel=0.01)
            or dtype == torch.float16
        )


def test_a_number_that_the_wanted_format_does_not_hold_shows_in_the_sum(tmp_path: Path) -> None:
    file = weights(tmp_path, x=torch.tensor([1.0, 70_000.0]))
    assert file.read(Source("x"), torch.empty(2)).isfinite()
    assert not file.read(Source("x"), torch.empty(2, dtype=torch.float16)).isfinite()


def test_a_file_that_changes_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights(tmp_path, x=numbers(50, 9))
    path = tmp_path / "w.safetensors"
    stamp = path.stat().st_mtime_ns
    os.utime(path, ns=(stamp, stamp + 1))
    with pytest.raises(DamagedFile, match=r"w\.safetensors was changed while it was read"):
        file.tensor(Source("x"))
    monkeypatch.setattr(loading_file, "_state", lambda stream: (0, 0, 0))
    file = Weights([path])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=r"w\.safetensors is damaged: it was cut off while it was read"):
        file.tensor(Source("x"))
    path.unlink()
    with pytest.raises(DamagedFile, match=r"w\.safetensors is damaged or cannot be read: No such file"):
        file.tensor(Source("x"))
    with pytest.raises(NotFound):
        Weights([path])


def test_number_formats_that_nothing_here_computes_in_are_named(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4, dtype=torch.complex64)}, tmp_path / "c.safetensors")
    with pytest.raises(IncompatibleFile, match=r"c\.safetensors: x is stored as C64"):
        TensorFile(tmp_path / "c.safetensors", "c.safetensors").dtype("x")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_a_file_is_never_mapped(tmp_path: Path) -> None:
    path = tmp_path / "unmapped.safetensors"
    save_file({"x": numbers(300, 300)}, path)
    kept = Weights([path]).tensor(Source("x"))
    assert kept.any()
    assert path.name not in Path("/proc/self/maps").read_text()


def test_weights_lie_as_a_module_would_lay_them() -> None:
    for shape in ((8, 4, 3, 3), (8, 4, 1, 1), (8, 1, 3, 3), (1, 4, 3, 3), (8, 4), (8,), ()):
        for layout in LAYOUTS:
            asked = torch.nn.ParameterList([torch.zeros(shape)]).to(memory_format=layout)[0]
            assert Room().take(shape, torch.float32, layout).stride() == asked.stride(), (shape, layout)


def test_places_are_apart_aligned_and_in_few_blocks() -> None:
    shapes = [(3, 5), (7,), (BLOCK // 4 + 1,), (64,), (1, 2, 3, 3), (BLOCK // 8,)] * 4
    room = Room(sum(Room.size(shape, torch.float32) for shape in shapes))
    places = [room.take(shape, torch.float32, torch.contiguous_format) for shape in shapes]
    spans = sorted((place.data_ptr(), place.data_ptr() + place.nbytes) for place in places)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert all(start % 64 == 0 for start, _ in spans)
    blocks = {place.untyped_storage().data_ptr(): place.untyped_storage().nbytes() for place in places}
    assert len(blocks) < 9
    assert all(size >= BLOCK for size in blocks.values())


def test_a_small_model_takes_no_more_than_it_needs_and_without_a_total_each_is_alone() -> None:
    room = Room(128)
    pair = [room.take((16,), torch.float32, torch.contiguous_format) for _ in range(2)]
    assert pair[0].untyped_storage().nbytes() == 128
    assert pair[0].untyped_storage().data_ptr() == pair[1].untyped_storage().data_ptr()
    room = Room()
    pair = [room.take((16,), torch.float32, torch.contiguous_format) for _ in range(2)]
    assert [place.untyped_storage().nbytes() for place in pair] == [64, 64]
