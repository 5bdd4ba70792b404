"""Diffusers folders: inspected, never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from studio.families import describe_folder, folder_weight_files, is_model_folder
from studio.families.folder import component_files
from tests.tiny_models import read_tensors, tiny_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("sd1"), tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "name, family, variant, prediction",
    [
        ("sd1", "sd1", "base", "epsilon"),
        ("sd2", "sd2", "base", "v_prediction"),
        ("sdxl", "sdxl", "base", "epsilon"),
        ("sdxl_refiner", "sdxl_refiner", "base", "epsilon"),
        ("sd1-inpaint", "sd1", "inpaint", "epsilon"),
        ("sd1-edit", "sd1", "edit", "epsilon"),
        ("sprout", "sd1", "base", "epsilon"),
    ],
)
def test_a_folder_of_each_family(name: str, family: str, variant: str, prediction: str) -> None:
    found = describe_folder(tiny_folder(name))
    assert (found.family, found.variant, found.prediction_type, found.problem) == (family, variant, prediction, None)
    assert found.native_size == 64
    assert found.states_prediction
    assert is_model_folder(tiny_folder(name))


def test_the_native_size_follows_the_levels_of_the_autoencoder(folder: Path) -> None:
    edit(folder / "unet" / "config.json", lambda data: data.update(sample_size=32))
    assert describe_folder(folder).native_size == 256
    edit(folder / "vae" / "config.json", lambda data: data.update(block_out_channels=[32, 32, 32]))
    assert describe_folder(folder).native_size == 128


def test_zero_terminal_noise_is_read_from_the_scheduler(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", lambda data: data.update(rescale_betas_zero_snr=True))
    assert describe_folder(folder).zero_terminal_snr


def _write(name: str, text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


def _edit(name: str, **values: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / name, lambda data: data.update(values))


@pytest.mark.parametrize(
    "change, words",
    [
        (_write("unet/modeling.py", "raise SystemExit"), "program code (unet/modeling.py)"),
        (_edit("model_index.json", auto_map={"x": "y"}), "auto_map"),
        (_edit("text_encoder/config.json", auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (_edit("model_index.json", unet=["my_code", "UNet2DConditionModel"]), "my_code"),
        (_edit("model_index.json", text_encoder=["transformers", "T5EncoderModel"]), "T5EncoderModel"),
        (_edit("model_index.json", unet=None, transformer=["diffusers", "FluxTransformer2DModel"]), "no known family"),
        (_edit("model_index.json", text_encoder=None), "no text_encoder"),
        (_write("model_index.json", "{"), "model_index.json is damaged"),
        (_write("unet/config.json", "[1]"), "unet/config.json is damaged"),
        (_write("unet/config.json", "[" * 100_000), "unet/config.json is damaged"),
        (_write("vae/config.json", " " * 1_000_001), "vae/config.json is larger"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json is missing"),
        (_edit("unet/config.json", time_cond_proj_dim=256), "time_cond_proj_dim"),
        (_edit("unet/config.json", addition_embed_type="image"), "image"),
        (_edit("text_encoder/config.json", vocab_size=32000), "32000"),
        (_edit("scheduler/scheduler_config.json", prediction_type="sample"), "sample"),
        (lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae has no weights"),
        (
            lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(
                folder / "vae" / "diffusion_pytorch_model.bin"
            ),
            "pickle",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(folder: Path, change: Callable[[Path], object], words: str) -> None:
    change(folder)
    assert words in (describe_folder(folder).problem or "")


def test_the_refiner_folder_is_recognised(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("sdxl_refiner"), tmp_path / "refiner"))
    edit(folder / "model_index.json", lambda data: data.update(text_encoder=[None, None]))
    found = describe_folder(folder)
    assert (found.family, found.variant, found.problem) == ("sdxl_refiner", "base", None)
    edit(folder / "model_index.json", lambda data: data.pop("text_encoder_2"))
    assert "no text_encoder_2" in (describe_folder(folder).problem or "")


def test_weight_files_are_full_precision_first_then_fp16(folder: Path) -> None:
    full = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    half.write_bytes(full.read_bytes())
    assert component_files(folder / "unet", "unet") == (full,)
    full.unlink()
    assert component_files(folder / "unet", "unet") == (half,)
    assert half in folder_weight_files(folder)
    assert len(folder_weight_files(folder)) == 3


def _sharded(folder: Path) -> Path:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(whole)
    names = {key: f"part-{index % 2}.safetensors" for index, key in enumerate(sorted(tensors))}
    for part in set(names.values()):
        save_file({key: tensors[key] for key in names if names[key] == part}, folder / "unet" / part)
    whole.unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    return index


def test_sharded_weights_are_found(folder: Path) -> None:
    _sharded(folder)
    assert [file.name for file in component_files(folder / "unet", "unet")] == [
        "part-0.safetensors",
        "part-1.safetensors",
    ]
    assert describe_folder(folder).problem is None


@pytest.mark.parametrize(
    "shard, words",
    [
        ("../../secret.safetensors", "no file of this folder"),
        ("model.bin", "no file of this folder"),
        ("gone.safetensors", "gone"),
    ],
)
def test_a_shard_index_cannot_point_elsewhere(folder: Path, shard: str, words: str) -> None:
    index = _sharded(folder)
    edit(index, lambda data: data["weight_map"].update(extra=shard))
    assert words in (describe_folder(folder).problem or "")


def test_a_missing_folder_has_a_problem_and_no_files(tmp_path: Path) -> None:
    assert "missing" in (describe_folder(tmp_path).problem or "")
    assert folder_weight_files(tmp_path) == ()
    assert not is_model_folder(tmp_path)
