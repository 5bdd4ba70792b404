"""Loading checkpoints: every family, both layouts, against diffusers' own loaders; and everything that can be wrong with a file."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from studio.engine.loading import LoadedModel, load_checkpoint, load_vae
from studio.errors import DamagedFile, IncompatibleFile, NotFound
from tests.tiny_models import (
    original_state,
    read_tensors,
    tiny_components,
    tiny_file,
    tiny_folder,
    tiny_info,
    tiny_lora,
    tiny_vae_file,
    tiny_vae_state,
)

CPU = torch.device("cpu")
FILES = ("sd1", "sd2", "sdxl", "sd1-inpaint", "sdxl_refiner")
UNET = "model.diffusion_model."


def load(path: Path, dtype: torch.dtype = torch.float32) -> LoadedModel:
    info = tiny_info(tiny_file("sd1")).model_copy(update={"path": str(path), "name": path.stem})
    return load_checkpoint(info, CPU, dtype)


def unet_output(unet: Any, model: LoadedModel) -> torch.Tensor:
    seeded = torch.Generator().manual_seed(0)
    x = torch.randn(2, unet.config.in_channels, 8, 8, generator=seeded)
    text = torch.randn(2, 7, unet.config.cross_attention_dim, generator=seeded)
    pooled = torch.randn(2, 64, generator=seeded)
    with torch.no_grad():
        result: torch.Tensor = unet(x, 500, text, added_cond_kwargs=model.added_conditions(pooled, 64, 64)).sample
    return result


@pytest.mark.parametrize("family", FILES)
def test_a_file_gives_the_models_it_was_made_from(family: str) -> None:
    parts = tiny_components(family)
    model = load_checkpoint(tiny_info(tiny_file(family)), CPU, torch.float32)
    loaded = {"unet": model.unet, "vae": model.vae} | {
        encoder.name: module for encoder, module in zip(model.family.encoders, model.text_encoders, strict=True)
    }
    assert loaded.keys() == parts.keys()
    for name, module in loaded.items():
        expected = parts[name].state_dict()
        assert module.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items()), name
        assert not module.training
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())
        assert not any(buffer.is_meta for buffer in module.buffers())
    assert torch.equal(unet_output(model.unet, model), unet_output(parts["unet"], model))
    assert (model.notes, model.inpaint) == ((), family == "sd1-inpaint")


@pytest.mark.parametrize("family", [*FILES, "sprout"])
def test_a_folder_gives_the_same(family: str) -> None:
    parts = tiny_components(family)
    model = load_checkpoint(tiny_info(tiny_folder(family)), CPU, torch.float32)
    for module, name in [
        (model.unet, "unet"),
        (model.vae, "vae"),
        (model.text_encoders[-1], model.family.encoders[-1].name),
    ]:
        expected = parts[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())
    assert torch.equal(unet_output(model.unet, model), unet_output(parts["unet"], model))
    latents = torch.ones(1, model.latent.channels, 4, 4)
    with torch.no_grad():
        assert torch.equal(model.vae.decode(latents).sample, parts["vae"].decode(latents).sample)
        assert model.vae.decode(latents).sample.shape[-1] == 4 * model.latent.scale
    assert model.native_size == 64
    assert model.latent.scaling_factor == parts["vae"].config.scaling_factor
    assert model.latent.shift_factor == 0


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_diffusers_reads_the_same_from_the_file(family: str) -> None:
    """The oracle for the original layout: diffusers' own single-file loader, given the tiny model's configuration."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    model = load_checkpoint(tiny_info(tiny_file(family)), CPU, torch.float32)
    options = {"config": str(tiny_folder(family)), "local_files_only": True}
    for cls, ours, subfolder in [(UNet2DConditionModel, model.unet, "unet"), (AutoencoderKL, model.vae, "vae")]:
        theirs = cls.from_single_file(str(tiny_file(family)), subfolder=subfolder, **options).state_dict()
        assert theirs.keys() == ours.state_dict().keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


def test_a_file_takes_latent_facts_and_schedule_from_its_family() -> None:
    model = load_checkpoint(tiny_info(tiny_file("sdxl")), CPU, torch.float32)
    assert (model.latent.channels, model.latent.scale, model.latent.scaling_factor, model.native_size) == (
        4,
        8,
        0.13025,
        1024,
    )
    assert model.latent.preview == model.family.preview
    assert model.alphas_cumprod.dtype == torch.float64
    assert float(model.alphas_cumprod[-1]) == pytest.approx(0.00466, rel=1e-3)


def test_a_folder_brings_its_own_schedule_and_preview_factors() -> None:
    model = load_checkpoint(tiny_info(tiny_folder("sprout")), CPU, torch.float32)
    betas = torch.linspace(0.00085**0.5, 0.020**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(model.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-12)
    assert model.latent.scale == 4
    assert model.latent.preview.factors[2] == (0.2, 0.2, -0.1)
    assert model.latent.preview.bias == (0.0, 0.1, 0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_cast_and_the_autoencoder_may_stay_wider(dtype: torch.dtype) -> None:
    model = load_checkpoint(tiny_info(tiny_file("sd1")), CPU, dtype, vae_dtype=torch.float32)
    assert (model.unet.dtype, model.vae.dtype, model.text_encoders[0].dtype) == (dtype, torch.float32, dtype)
    expected = tiny_components("sd1")["unet"].state_dict()
    assert all(torch.equal(value, expected[key].to(dtype)) for key, value in model.unet.state_dict().items())


def test_only_sdxl_is_told_the_size() -> None:
    sdxl = load_checkpoint(tiny_info(tiny_folder("sdxl")), CPU, torch.bfloat16)
    pooled = torch.zeros(2, 64, dtype=torch.bfloat16)
    told = sdxl.added_conditions(pooled, width=1001, height=768, crop=(5, 6))
    assert told is not None
    assert told["time_ids"].tolist() == [[768, 1001, 6, 5, 768, 1001]] * 2
    assert told["text_embeds"] is pooled
    with pytest.raises(ValueError, match="pooled"):
        sdxl.added_conditions(None, 64, 64)
    refiner = load_checkpoint(tiny_info("sdxl_refiner"), CPU, torch.float32)
    for is_negative, score in ((False, 6.0), (True, 2.5)):
        told = refiner.added_conditions(pooled, 1001, 768, (5, 6), is_negative=is_negative)
        assert told is not None
        assert told["time_ids"].tolist() == [[768, 1001, 6, 5, score]] * 2
    sd1 = load_checkpoint(tiny_info(tiny_folder("sd1")), CPU, torch.float32)
    assert sd1.added_conditions(None, 64, 64) is None


def test_nothing_on_disk_can_change_a_loaded_model(tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_file("sd1"), tmp_path))
    model = load(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 1_000_000)
    expected = tiny_components("sd1")["unet"].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.unet.state_dict().items())


def test_loading_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for path in (tiny_file("sdxl"), tiny_folder("sd2")):
        load_checkpoint(tiny_info(path), CPU, torch.float32)


# --- what the model predicts -----------------------------------------------------------------------------------------


def test_prediction_type_of_a_folder_and_of_marked_files(tmp_path: Path) -> None:
    assert load_checkpoint(tiny_info(tiny_folder("sd2")), CPU, torch.float32).prediction_type == "v_prediction"
    path = tmp_path / "noob.safetensors"
    save_file(original_state("sd1") | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}, path)
    model = load(path)
    assert model.prediction_type == "v_prediction"
    assert float(model.alphas_cumprod[-1]) < 1e-7
    assert model.notes == ()
    plain = load(tiny_file("sd1"))
    assert plain.prediction_type == "epsilon"
    assert float(plain.alphas_cumprod[-1]) == pytest.approx(0.00466, rel=1e-2)


@pytest.mark.parametrize("spread, prediction", [(0.2, "v_prediction"), (0.01, "epsilon")])
def test_sd2_files_are_judged_by_their_weights(tmp_path: Path, spread: float, prediction: str) -> None:
    """The tiny U-Net has too few blocks for the weight that is looked at, so the real depth is made from two layers a block."""
    from diffusers import UNet2DConditionModel

    from tests.tiny_original import original_unet

    config = dict(tiny_components("sd2")["unet"].config) | {"layers_per_block": 2}
    unet = UNet2DConditionModel.from_config(config).state_dict()
    unet["up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"] = (
        torch.randn(32, generator=torch.Generator().manual_seed(1)) * spread
    )
    state = {key: value for key, value in original_state("sd2").items() if not key.startswith(UNET)}
    path = tmp_path / "sd2.safetensors"
    save_file(
        state | {UNET + key: value for key, value in original_unet(unet, 2, [False, True, True, True]).items()}, path
    )
    model = load(path)
    assert model.prediction_type == prediction
    assert prediction in model.notes[0]


# --- what can be wrong -----------------------------------------------------------------------------------------------


def broken(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], family: str = "sd1") -> Path:
    state = original_state(family)
    change(state)
    path = tmp_path / "broken.safetensors"
    save_file(state, path)
    return path


@pytest.mark.parametrize("keep", [0, 4, 8, 2000, 0.3, 0.999])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: float) -> None:
    data = tiny_file("sd1").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DamagedFile, match=r"cut\.safetensors is damaged"):
        load(path)


@pytest.mark.parametrize(
    "key, value",
    [
        (f"{UNET}out.2.bias", float("nan")),
        ("first_stage_model.decoder.conv_in.weight", float("inf")),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", -float("inf")),
    ],
)
def test_one_bad_number_is_damage(tmp_path: Path, key: str, value: float) -> None:
    path = broken(tmp_path, lambda state: state[key].view(-1)[-1:].fill_(value))
    with pytest.raises(DamagedFile, match="no finite numbers"):
        load(path)


def test_weights_too_large_for_half_precision_are_said_to_be(tmp_path: Path) -> None:
    path = broken(tmp_path, lambda state: state[f"{UNET}out.2.bias"].fill_(70_000.0))
    load(path, torch.bfloat16)
    with pytest.raises(DamagedFile, match="float16"):
        load(path, torch.float16)


def test_large_but_sound_weights_are_no_damage(tmp_path: Path) -> None:
    """Their half precision sum overflows, they do not."""
    load(broken(tmp_path, lambda state: state[f"{UNET}out.2.weight"].fill_(60_000.0)), torch.float16)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda state: state.pop(f"{UNET}out.0.bias"), r"lacks 1 weights of the unet: .*out\.0\.bias"),
        (lambda state: state.pop("first_stage_model.quant_conv.bias"), r"lacks 1 weights of the vae: .*quant_conv"),
        (
            lambda state: state.pop("cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.bias"),
            r"lacks 1 weights of the text_encoder: .*layers\.1\.mlp",
        ),
        (
            lambda state: state.update({f"{UNET}out.2.bias": torch.zeros(9)}),
            r"other shapes: .*out\.2\.bias is \[9\], expected \[4\]",
        ),
        (lambda state: state.update({f"{UNET}motion.weight": torch.zeros(9)}), r"does not know: .*motion\.weight"),
        (lambda state: state.update({f"{UNET}out.2.bias": torch.zeros(4, dtype=torch.int8)}), "quantised"),
        (lambda state: state.pop(f"{UNET}middle_block.1.proj_in.weight"), r"not built like .*middle_block\.1\.proj_in"),
        (lambda state: state.update({"edm_mean": torch.zeros(4)}), "Playground"),
    ],
)
def test_files_that_do_not_fit_say_what_does_not(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    with pytest.raises(IncompatibleFile, match=words):
        load(broken(tmp_path, change))


def test_unused_weights_elsewhere_are_noted(tmp_path: Path) -> None:
    model = load(broken(tmp_path, lambda state: state.update({"mystery.weight": torch.zeros(3)})))
    assert model.notes == ("1 weights of broken.safetensors were not used: mystery.weight.",)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"\x80\x02.")
    with pytest.raises(IncompatibleFile, match="pickle"):
        load(pickled)
    with pytest.raises(IncompatibleFile, match="LoRA"):
        load(tiny_lora("sd1"))
    with pytest.raises(IncompatibleFile, match="autoencoder"):
        load(tiny_vae_file("sd1"))
    with pytest.raises(NotFound, match="gone"):
        load(tmp_path / "gone.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("sd1"), tmp_path / "model"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_folders_with_code_or_nonsense_are_refused(folder: Path) -> None:
    edit(folder / "unet" / "config.json", down_block_types=["NoSuchBlock2D"] * 4)
    with pytest.raises(IncompatibleFile, match="unet cannot be built"):
        load(folder)
    edit(folder / "unet" / "config.json", **json.loads((tiny_folder("sd1") / "unet" / "config.json").read_text()))
    edit(folder / "preview.json") if (folder / "preview.json").exists() else (folder / "preview.json").write_text(
        '{"factors": 1}'
    )
    with pytest.raises(IncompatibleFile, match=r"preview\.json"):
        load(folder)
    (folder / "preview.json").unlink()
    edit(folder / "scheduler" / "scheduler_config.json", beta_schedule="sigmoid")
    with pytest.raises(IncompatibleFile, match="sigmoid"):
        load(folder)
    (folder / "unet" / "block.py").write_text("import os")
    with pytest.raises(IncompatibleFile, match="program code"):
        load(folder)


def test_a_truncated_component_of_a_folder_is_named(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=r"model/vae/diffusion_pytorch_model\.safetensors is damaged"):
        load(folder)


def test_dangerous_options_of_a_text_configuration_are_not_passed_on(folder: Path) -> None:
    edit(
        folder / "text_encoder" / "config.json",
        _attn_implementation="hub/kernel",
        _attn_implementation_internal="hub/kernel",
        torchscript=True,
    )
    config = load(folder).text_encoders[0].config
    assert config._attn_implementation == "sdpa"
    assert not getattr(config, "torchscript", False)


def test_a_sharded_folder_loads(folder: Path) -> None:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(whole)
    names = {key: f"part-{index % 2}.safetensors" for index, key in enumerate(sorted(tensors))}
    for part in set(names.values()):
        save_file({key: tensors[key] for key in names if names[key] == part}, folder / "unet" / part)
    whole.unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    expected = tiny_components("sd1")["unet"].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in load(folder).unet.state_dict().items())


def test_folders_of_older_libraries_load(folder: Path) -> None:
    """transformers before 5.6 put text_model. in front; diffusers before 0.18 named the autoencoder's attention otherwise."""
    text = folder / "text_encoder" / "model.safetensors"
    save_file(
        {f"text_model.{key.removeprefix('text_model.')}": value for key, value in read_tensors(text).items()}, text
    )
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(key: str) -> str:
        return next((key.replace(f".{new}.", f".{name}.") for new, name in renames.items() if f".{new}." in key), key)

    save_file({old(key): value for key, value in read_tensors(vae).items()}, vae)
    assert any(".query." in key for key in read_tensors(vae))
    model = load(folder)
    for module, name in ((model.vae, "vae"), (model.text_encoders[0], "text_encoder")):
        expected = tiny_components("sd1")[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in module.state_dict().items())


# --- separate autoencoders -------------------------------------------------------------------------------------------


def diffusers_vae(tmp_path: Path) -> Path:
    path = tmp_path / "vae.safetensors"
    save_file({key: value * 1.01 for key, value in tiny_components("sd1")["vae"].state_dict().items()}, path)
    return path


def checkpoint_as_vae(tmp_path: Path) -> Path:
    return broken(
        tmp_path,
        lambda state: state.update({f"first_stage_model.{k}": v * 1.01 for k, v in tiny_vae_state("sd1").items()}),
    )


@pytest.mark.parametrize("make", [lambda _: tiny_vae_file("sd1"), diffusers_vae, checkpoint_as_vae])
def test_a_separate_autoencoder_in_every_layout(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    model = load_checkpoint(tiny_info("sd1"), CPU, torch.float32)
    found = load_vae(tiny_info(make(tmp_path), "vae"), model)
    expected = tiny_components("sd1")["vae"].state_dict()
    assert all(torch.equal(value, expected[key] * 1.01) for key, value in found.module.state_dict().items())
    assert found.latent == model.latent
    assert found.module.config.scaling_factor == model.vae.config.scaling_factor
    assert load_vae(tiny_info(make(tmp_path), "vae"), model, torch.bfloat16).module.dtype == torch.bfloat16


def test_an_autoencoder_of_another_latent_space_is_refused(tmp_path: Path) -> None:
    sprout = load_checkpoint(tiny_info("sprout"), CPU, torch.float32)
    with pytest.raises(IncompatibleFile, match=r"4 latent channels at 1/8 .* needs 4 at 1/4"):
        load_vae(tiny_info(tiny_vae_file("sd1"), "vae"), sprout)
    with pytest.raises(IncompatibleFile, match="LoRA"):
        load_vae(tiny_info(tiny_lora("sd1"), "vae"), sprout)
    with pytest.raises(IncompatibleFile, match="pickle"):
        load_vae(tiny_info(tiny_vae_file("sd1"), "vae").model_copy(update={"path": str(tmp_path / "x.pt")}), sprout)
