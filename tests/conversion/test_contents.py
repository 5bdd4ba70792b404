"""Which of a file's tensors come out, under which names; the file that is written, byte for byte what safetensors reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from studio.conversion.child import convert
from studio.conversion.contents import contents_of
from studio.conversion.writing import DTYPES, write
from studio.errors import DamagedFile, IncompatibleFile, StorageError
from studio.families import describe_embedding, describe_hypernetwork
from studio.library import read_header

ONE = torch.ones(2, 3)


@pytest.mark.parametrize(
    "data, keys",
    [
        ({"state_dict": {"model.a": ONE, "model.n": 3}, "optimizer_states": [{"x": ONE}]}, {"model.a"}),
        ({"model.a": ONE, "model.b": ONE, "epoch": 3, "nested": {"c": ONE}}, {"model.a", "model.b"}),
        ({"params_ema": {"conv.weight": ONE, "b": ONE}, "params": {"c": ONE}}, {"conv.weight", "b"}),
        ({"params": {"conv.weight": ONE, "b": ONE}}, {"conv.weight", "b"}),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": ONE}, "name": "x"}, {"emb_params"}),
        ({"<cat>": torch.ones(768)}, {"emb_params"}),
        ({"clip_l": ONE, "clip_g": ONE}, {"clip_l", "clip_g"}),
    ],
    ids=["checkpoint", "bare", "averaged", "upscaler", "A1111's embedding", "diffusers' embedding", "SDXL's embedding"],
)
def test_what_is_the_model(data: dict[str, Any], keys: set[str]) -> None:
    assert contents_of(data, "a.pt").tensors.keys() == keys


@pytest.mark.parametrize("data", [{}, {"epoch": 3}, [ONE], ONE, 7, {"a": {"b": {"c": ONE}}}, {3: "x"}])
def test_what_is_no_model(data: object) -> None:
    with pytest.raises(IncompatibleFile, match=r"a\.pt holds no model"):
        contents_of(data, "a.pt")


def test_an_embedding_with_several_words_is_refused() -> None:
    with pytest.raises(DamagedFile, match="2 sets of vectors"):
        contents_of({"string_to_param": {"a": ONE, "b": ONE}}, "a.pt")


def test_embeddings_are_those_that_the_library_takes(tmp_path: Path) -> None:
    vectors = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.rand(2, 768))})
    torch.save({"string_to_param": vectors}, tmp_path / "a.pt")
    assert convert_to(tmp_path / "a.safetensors", tmp_path / "a.pt") == 1
    assert describe_embedding(read_header(tmp_path / "a.safetensors")).vectors == 2
    assert torch.equal(load_file(tmp_path / "a.safetensors")["emb_params"], vectors["*"])


def hypernetwork(places: list[str], **more: Any) -> dict[Any, Any]:
    """A1111's layout; `places` are the keys of the first layer's weight, of its normalisation (or none), of the last layer's weight."""

    def module() -> dict[str, Tensor]:
        shapes = [(1536, 768), (1536,), (768, 1536)] if len(places) == 3 else [(1536, 768), (768, 1536)]
        found: dict[str, Tensor] = {}
        for place, shape in zip(places, shapes, strict=True):
            found |= {f"{place}.weight": torch.rand(shape), f"{place}.bias": torch.rand(shape[0])}
        return found

    return {768: (module(), module()), "step": 3000, "name": "ink", "layer_structure": [1, 2, 1], **more}


@pytest.mark.parametrize(
    "places, keys",
    [
        (["linear.0", "linear.2"], ["linear.0", "linear.1"]),
        (["linear.0", "linear.2", "linear.4"], ["linear.0", "norm.0", "linear.1"]),
        (["linear1", "linear2"], ["linear.0", "linear.1"]),
        (["linear.0", "linear.10"], ["linear.0", "linear.1"]),
    ],
    ids=["with activation", "with normalisation and dropout", "of 2022", "many places"],
)
def test_a_hypernetwork(places: list[str], keys: list[str], tmp_path: Path) -> None:
    data = hypernetwork(places, activation_func="swish", is_layer_norm=len(places) == 3, use_dropout=True)
    torch.save(data, tmp_path / "a.pt")
    convert_to(tmp_path / "a.safetensors", tmp_path / "a.pt")
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == {f"768.{half}.{key}.{part}" for half in "kv" for key in keys for part in ("weight", "bias")}
    for old, new in zip(places, keys, strict=True):
        assert torch.equal(found[f"768.v.{new}.weight"], data[768][1][f"{old}.weight"])
    header = read_header(tmp_path / "a.safetensors")
    said = describe_hypernetwork(header)
    assert (said.problem, said.widths, said.layers, said.activation, said.activates_output) == (
        None,
        (768,),
        2,
        "swish",
        True,
    )
    assert json.loads(header["__metadata__"]["hypernetwork"])["step"] == 3000


def test_a_hypernetwork_says_what_it_activates() -> None:
    said = contents_of(hypernetwork(["linear.0", "linear.1"], activation_func=None, activate_output=False), "a.pt")
    notes = json.loads(said.metadata["hypernetwork"])
    assert (notes["activation_func"], notes["activate_output"]) == ("linear", False)


def test_a_hypernetwork_with_other_modules_is_refused() -> None:
    data = {768: ({"conv.weight": ONE}, {"conv.weight": ONE})}
    with pytest.raises(DamagedFile, match=r"'conv\.weight'"):
        contents_of(data, "a.pt")


def convert_to(target: Path, source: Path) -> int:
    with target.open("wb") as stream:
        return convert(source, stream)


@pytest.mark.parametrize("new", [True, False])
def test_every_format_of_numbers_stays(new: bool, tmp_path: Path) -> None:
    shared = torch.arange(24.0)
    tensors = {
        f"t{i}": torch.arange(6).to(dtype).reshape(2, 3) for i, dtype in enumerate(DTYPES) if new or dtype.itemsize > 1
    }
    tensors |= {"shared": shared, "part": shared[4:10], "turned": shared.reshape(4, 6).t(), "none": torch.zeros(0, 3)}
    tensors |= {"one": torch.tensor(2.5), "learned": torch.nn.Parameter(torch.ones(2))}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    assert convert_to(tmp_path / "a.safetensors", tmp_path / "a.ckpt") == len(tensors)
    read_header(tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert found[key].dtype == tensor.dtype and found[key].shape == tensor.shape
        assert torch.equal(
            found[key].contiguous().reshape(-1).view(torch.uint8),
            tensor.detach().contiguous().reshape(-1).view(torch.uint8),
        )


@pytest.mark.parametrize(
    "tensor, said",
    [
        (torch.ones(1).expand(10**6, 10**6), "larger together"),
        (torch.ones(2, dtype=torch.complex64), "no place for"),
        (torch.eye(2).to_sparse(), "no place for"),
        (torch.ones(2, device="meta"), "no place for"),
    ],
    ids=["bomb", "complex", "sparse", "meta"],
)
def test_tensors_that_are_not_written(tensor: Tensor, said: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": tensor, "b": ONE}}, tmp_path / "a.ckpt")
    with pytest.raises(DamagedFile, match=said):
        convert_to(tmp_path / "a.safetensors", tmp_path / "a.ckpt")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"\ud800": ONE, "b": ONE}}, tmp_path / "a.ckpt")
    with pytest.raises(DamagedFile, match="no name for a tensor"):
        convert_to(tmp_path / "a.safetensors", tmp_path / "a.ckpt")


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    torch.save({"state_dict": {"a": torch.ones(10_000), "b": ONE}}, tmp_path / "a.ckpt")
    with pytest.raises(StorageError, match="disk is full"), full.open("wb", buffering=0) as stream:
        convert(tmp_path / "a.ckpt", stream)  # type: ignore[arg-type]


def test_wide_numbers_come_first(tmp_path: Path) -> None:
    """So that each begins where a processor reads it without a detour."""
    with (tmp_path / "a.safetensors").open("wb") as stream:
        write(stream, {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(1, dtype=torch.float64)}, {"x": "ü"})
    header = read_header(tmp_path / "a.safetensors")
    assert header["b"]["data_offsets"] == [0, 8]
    assert header["__metadata__"] == {"format": "pt", "x": "ü"}
