"""A whole U-Net, and text encoders alone: what they write is what this program and plain diffusers load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from transformers import CLIPTextModel

from studio.engine.eight_bit import PLAIN
from studio.engine.loading import load_checkpoint
from studio.engine.text_files import load_text_encoder
from studio.errors import TrainingError
from studio.families.signature import describe_checkpoint
from studio.library import Library
from studio.paths import Paths
from studio.schema.models import ModelInfo
from tests.tiny_models import read_header, read_tensors, tiny_file, tiny_info
from tests.training.tuning import events, run_in, settings, studio, train

CPU = torch.device("cpu")


def unet_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(tiny_info(path), CPU, torch.float32).unet.state_dict())


def differ(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> set[str]:
    assert left.keys() == right.keys()
    return {key for key, value in left.items() if not torch.equal(value, right[key])}


def whole(module: Any) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_file_trained_on_a_file_has_the_same_keys_and_only_the_unet_differs(family: str, tmp_path: Path) -> None:
    source = tiny_file(family)
    root = studio(tmp_path / "s", family, model=source)
    config = settings("full", steps=2, ema_decay=0.5, optimizer={"learning_rate": 1e-3}, validation={"every": 1})
    run = run_in(root, config)
    path = train(run)
    assert path == root / "checkpoints" / "tiny-1.safetensors"  # the base has the name
    before, after = read_tensors(source), read_tensors(path)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed and all(key.startswith("model.diffusion_model.") for key in changed)
    assert len(changed) > 0.8 * len([key for key in after if key.startswith("model.diffusion_model.")])
    left_out = {key for key in before.keys() - after.keys() if not key.startswith("model_ema.")}
    assert all(
        "alphas_cumprod" in key
        or "resblocks.3" in key
        or key.endswith(("text_projection", "logit_scale", "position_ids"))
        for key in left_out
    ), left_out
    info = Library(Paths(root)).checkpoint("tiny-1")
    old = Library(Paths(root)).checkpoint("tiny")
    assert (info.problem, info.family, info.prediction_type) == (None, family, old.prediction_type)
    meta = read_header(path)["__metadata__"]
    assert meta["studio.run"] == run.id and meta["studio.base"] == old.sha256
    assert events(run, "validated")[-1].step == 2


@pytest.mark.parametrize("method", ["full", "text_encoder"])
@pytest.mark.parametrize("marks", [set(), {"v_pred"}, {"v_pred", "ztsnr"}], ids=["epsilon", "v", "v-ztsnr"])
def test_a_file_of_sdxl_that_predicts_v_says_so_to_other_programs(marks: set[str], method: str, tmp_path: Path) -> None:
    """Those that read no metadata look for empty tensors."""
    source = tmp_path / "marked.safetensors"
    save_file({**read_tensors(tiny_file("sdxl")), **{mark: torch.zeros(0) for mark in marks}}, source)
    root = studio(tmp_path / "s", "sdxl", model=source)
    more = {"result": "checkpoint", "layout": "file"} if method == "text_encoder" else {}
    output = {"name": "more", "number_format": "fp16"}
    path = train(run_in(root, settings(method, steps=1, output=output, **more)))
    header = read_header(path)
    assert header.keys() & {"v_pred", "ztsnr"} == marks
    assert all(header[mark]["shape"] == [0] and header[mark]["dtype"] == "F16" for mark in marks)
    said = describe_checkpoint({key: value for key, value in header.items() if key != "__metadata__"})
    assert said.prediction_type == ("v_prediction" if marks else "epsilon")
    assert (said.states_prediction, said.zero_terminal_snr, said.problem) == (bool(marks), "ztsnr" in marks, None)
    ours, base = (load_checkpoint(tiny_info(file), CPU, torch.float32) for file in (path, source))
    assert ours.prediction_type == said.prediction_type and torch.equal(ours.alphas_cumprod, base.alphas_cumprod)


def test_a_folder_trained_on_the_embedded_kind_loads_in_plain_diffusers(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", "sprout")
    run = run_in(root, settings("full", steps=2, layout="folder", output={"name": "more", "number_format": "fp16"}))
    path = train(run)
    assert path == root / "checkpoints" / "more"
    assert Library(Paths(root)).checkpoint("more").problem is None
    assert json.loads((path / "training.json").read_text())["run"] == run.id
    from diffusers import AutoencoderKL, UNet2DConditionModel

    unet, vae = UNet2DConditionModel.from_pretrained(path / "unet"), AutoencoderKL.from_pretrained(path / "vae")
    ours = load_checkpoint(tiny_info(path), CPU, torch.float32)
    assert not differ(whole(unet), whole(ours.unet)) and vae.config.scaling_factor == pytest.approx(0.37)
    assert differ(whole(ours.unet), unet_of(root / "checkpoints" / "tiny"))
    assert str(root) not in "".join(file.read_text() for file in path.rglob("*.json"))
    assert train(run) == path  # finished already


def test_a_folder_made_of_a_file_is_a_whole_pipeline(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", "sdxl", model=tiny_file("sdxl"))
    train(run_in(root, settings("full", steps=1, layout="both", output={"name": "more", "number_format": "fp32"})))
    made = StableDiffusionXLPipeline.from_pretrained(root / "checkpoints" / "more", local_files_only=True)
    assert made.tokenizer_2.pad_token == "!" and made.tokenizer.pad_token == "<|endoftext|>"
    assert not differ(whole(made.unet), unet_of(root / "checkpoints" / "more.safetensors"))


def test_one_file_is_refused_for_a_model_that_it_could_not_describe(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", "sprout")
    with pytest.raises(TrainingError, match=r'tiny cannot be written as one file: .* layout = "folder"'):
        train(run_in(root, settings("full")))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_only_the_text_encoders_learn_and_the_result_is_a_lora_of_them(family: str, tmp_path: Path) -> None:
    root = studio(tmp_path / "s", family)
    path = train(run_in(root, settings("text_encoder", steps=2, optimizer={"learning_rate": 1e-2})))
    tensors = read_tensors(path)
    prefixes = {key.split("_text_model")[0] for key in tensors}
    assert prefixes == ({"lora_te"} if family == "sd1" else {"lora_te1", "lora_te2"})
    assert any(float(value.abs().max()) > 0 for key, value in tensors.items() if key.endswith("up.weight"))
    meta = read_header(path)["__metadata__"]
    assert meta["ss_unet_lr"] == "None" and meta["ss_text_encoder_lr"] == "0.01"
    assert Library(Paths(root)).lora("tiny").problem is None


def test_all_weights_of_the_text_encoder_in_a_checkpoint(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", "sd1")
    config = settings(
        "text_encoder", steps=2, result="checkpoint", layout="folder", output={"name": "said", "number_format": "fp32"}
    )
    path = train(run_in(root, config))
    old, new = (load_checkpoint(tiny_info(each), CPU, torch.float32) for each in (root / "checkpoints" / "tiny", path))
    assert not differ(whole(old.unet), whole(new.unet)) and not differ(whole(old.vae), whole(new.vae))
    assert len(differ(whole(old.text_encoders[0]), whole(new.text_encoders[0]))) > 20
    # The text encoder's own file, which may be put into the folder of text encoders and be used with the base.
    file = tmp_path / "said.safetensors"
    shutil.copy(path / "text_encoder" / "model.safetensors", file)
    encoder = load_text_encoder(
        ModelInfo.model_validate(
            {"kind": "text_encoder", "name": "said", "path": str(file), "layout": "file", "family": "unknown"}
            | {"size": 1, "mtime": 0.0, "text_widths": (32,)}
        ),
        *(old, old.text_encoders[0], torch.float32, torch.contiguous_format, PLAIN),
    )
    assert not differ(whole(encoder), whole(new.text_encoders[0]))
    theirs = CLIPTextModel.from_pretrained(path / "text_encoder")
    assert not {
        key
        for key, value in theirs.state_dict().items()
        if not torch.equal(value, new.text_encoders[0].state_dict()[key])
    }
