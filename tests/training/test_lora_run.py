"""A LoRA from settings to a file that this program and plain diffusers read alike; every family."""

from __future__ import annotations

import hashlib
import io
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from studio.engine import packing
from studio.engine.hardware import Hardware
from studio.engine.loading import load_checkpoint
from studio.engine.lora import LoraStack, LoraWeights
from studio.engine.text_encoders import encode_tokens
from studio.families.lora_signature import describe_lora
from studio.library import Library
from studio.paths import Paths
from studio.prompt.tokenizer import VOCABULARY
from studio.training.context import TrainingContext
from studio.training.runs import RunFolder
from studio.training.tuning import base as base_module
from studio.training.tuning.publish import add_preview
from tests.tiny_models import read_header, read_tensors, tiny_components, tiny_file, tiny_info
from tests.training.tuning import events, run_in, settings, studio, train

CPU = torch.device("cpu")
TOKENS = torch.tensor([[49406, 320, 736, 3240, *([49407] * 73)]])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder, Path]:
    """A run with everything: U-Net and text encoder, alpha unlike rank, trigger word, validation, samples, EMA, accumulation."""
    root = studio(tmp_path_factory.mktemp("studio"), "sd1")
    config = settings(
        text_encoder=True,
        data={"path": "pictures", "resolution": 64, "trigger": "tinystyle", "flip": True, "shuffle": True},
        network={
            "rank": 4,
            "alpha": 8,
            "layers": "attention+feed-forward+conv",
            "conv_rank": 2,
            "conv_alpha": 1,
            "dropout": 0.1,
        },
        optimizer={"learning_rate": 1e-2, "accumulate": 2},
        ema_decay=0.5,
        validation={"every": 3},
        samples={"prompts": ["a fox", "(a) wolf"], "every": 3, "steps": 2, "seed": 9},
        output={"name": "Tiny Style", "number_format": "fp32"},
    )
    run = run_in(root, config)
    return root, run, train(run)


def test_the_file_has_kohyas_names_and_the_alpha_that_was_trained_with(finished: tuple[Path, RunFolder, Path]) -> None:
    path = finished[2]
    tensors = read_tensors(path)
    assert path.name == "Tiny Style.safetensors"
    layers = {key.split(".")[0] for key in tensors}
    assert {key.split(".", 1)[1] for key in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert len(tensors) == 3 * len(layers)
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q" in layers
    assert "lora_unet_mid_block_attentions_0_proj_in" in layers
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj" in layers  # not lora_te1_, which is SDXL's
    assert all(layer.startswith(("lora_unet_", "lora_te_text_model_encoder_layers_")) for layer in layers)
    assert float(tensors["lora_unet_mid_block_attentions_0_proj_in.alpha"]) == 8  # the rank is 4
    conv = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert float(tensors[f"{conv}.alpha"]) == 1 and tensors[f"{conv}.lora_down.weight"].shape[0] == 2
    idle = {key.split(".")[0] for key, value in tensors.items() if "lora_up" in key and not value.abs().max() > 0}
    # At one pixel there is nothing to choose between in attention to oneself, and so nothing to learn.
    assert {layer.rpartition("attn1_")[2] for layer in idle} <= {"to_q", "to_k"} and len(idle) <= 2


def test_the_metadata_says_what_programs_look_for(finished: tuple[Path, RunFolder, Path]) -> None:
    root, run, path = finished
    header = read_header(path)["__metadata__"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == header
    raw = path.read_bytes()
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert header["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert header["modelspec.hash_sha256"] == "0x" + header["sshs_model_hash"]
    assert len(header["sshs_legacy_hash"]) == 8
    wanted = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "8.0",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "Tiny Style",
        "ss_resolution": "(64, 64)",
        "ss_steps": "6",
        "ss_sd_model_name": "tiny",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.trigger_phrase": "tinystyle",
        "modelspec.prediction_type": "epsilon",
        "studio.run": run.id,
    }
    assert {key: header[key] for key in wanted} == wanted
    assert json.loads(header["ss_network_args"])["conv_dim"] == "2"
    assert json.loads(header["ss_tag_frequency"])["pictures"]["a thing"] == 6
    assert json.loads(header["ss_dataset_dirs"]) == {"pictures": {"n_repeats": 1, "img_count": 6}}
    assert str(root) not in json.dumps(header)
    facts = json.loads(run.result.read_text())
    assert facts["file"] == str(path) and header["studio.dataset"] == facts["data"]


def test_the_library_lists_it_with_family_trigger_and_hash(finished: tuple[Path, RunFolder, Path]) -> None:
    root, _, path = finished
    info = Library(Paths(root)).lora("Tiny Style")
    assert (info.problem, info.trigger, info.alias) == (None, "tinystyle", "Tiny Style")
    assert info.short_hash == read_header(path)["__metadata__"]["sshs_model_hash"][:12]
    signature = describe_lora(read_header(path))
    assert (signature.family, signature.naming, signature.algorithm) == ("sd1", "kohya", "locon")


def test_its_card_is_the_last_sample_of_its_first_prompt_and_a_card_of_the_users_stays(
    finished: tuple[Path, RunFolder, Path],
) -> None:
    root, run, path = finished
    card = Path(Library(Paths(root)).lora("Tiny Style").preview or "")
    assert card.read_bytes() == (run.samples / "step-00000006-00.png").read_bytes()
    other = path.with_name("other.safetensors")
    other.with_suffix(".png").write_bytes(b"mine")
    add_preview(other, run, 6)
    assert not other.with_suffix(".preview.png").exists()
    other.with_suffix(".png").unlink()
    add_preview(other, run, 0)  # the base's own picture says nothing of the LoRA
    assert not other.with_suffix(".preview.png").exists()
    add_preview(other, run, 5)
    early = other.with_suffix(".preview.png")
    assert early.read_bytes() == (run.samples / "step-00000003-00.png").read_bytes()
    early.unlink()


def pipeline(root: Path, family: str = "sd1") -> StableDiffusionPipeline:
    folder = root / "checkpoints" / "tiny"
    from diffusers import DDIMScheduler

    made = StableDiffusionPipeline(
        vae=tiny_components(family)["vae"],
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(VOCABULARY),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler", steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def ask(unet: Any, text: torch.Tensor, added: Any = None) -> torch.Tensor:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer: torch.Tensor = unet(x, torch.tensor([400]), text, added_cond_kwargs=added).sample
    return answer


def test_plain_diffusers_loads_it_with_the_same_answer_as_our_engine(finished: tuple[Path, RunFolder, Path]) -> None:
    root, _, path = finished
    plain = pipeline(root)
    before = plain(
        prompt="a fox",
        num_inference_steps=2,
        output_type="np",
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(1),
    )
    plain.load_lora_weights(path.parent, weight_name=path.name)
    after = plain(
        prompt="a fox",
        num_inference_steps=2,
        output_type="np",
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(1),
    )
    assert np.abs(before.images - after.images).max() > 0.01
    ours = load_checkpoint(tiny_info(root / "checkpoints" / "tiny"), CPU, torch.float32)
    LoraStack(ours).apply([LoraWeights(path, 1.0, 1.0)])
    text = encode_tokens(ours, TOKENS).joined()
    theirs = plain.text_encoder(TOKENS).last_hidden_state.detach()
    assert torch.allclose(text, theirs, atol=1e-5)
    assert torch.allclose(ask(ours.unet, text), ask(plain.unet, theirs), atol=1e-4)


def test_samples_begin_with_the_base_and_know_where_they_come_from(finished: tuple[Path, RunFolder, Path]) -> None:
    _, run, _ = finished
    painted = events(run, "sample")
    assert [(event.step, event.index) for event in painted] == [(0, 0), (0, 1), (3, 0), (3, 1), (6, 0), (6, 1)]
    pictures, texts = [], []
    for event in painted:
        with Image.open(run.path / event.file) as picture:
            pictures.append(np.asarray(picture, dtype=int))
            texts.append(picture.info["parameters"])
    assert texts[1].startswith("(a) wolf") and "Seed: 10," in texts[1]
    assert "Training run: tiny-run, Training step: 3" in texts[2]
    assert np.abs(pictures[0] - pictures[4]).max() > 3


def test_the_sample_of_step_0_is_what_the_engine_paints_with_the_base(finished: tuple[Path, RunFolder, Path]) -> None:
    from studio.engine.runner import DiffusersEngine
    from studio.resolve import resolve
    from studio.schema.engine import CancelToken
    from studio.schema.events import ImageReady
    from studio.schema.request import GenerationRequest

    root, run, _ = finished
    request = GenerationRequest(
        prompt="a fox", model="tiny", sampler="DPM++ 2M", steps=2, cfg_scale=7, width=64, height=64, seed=9
    )
    resolved = resolve(request, Library(Paths(root)), draw_seed=lambda: 0)
    ready = [
        event
        for event in DiffusersEngine("cpu", precision="fp32").run(resolved, CancelToken())
        if isinstance(event, ImageReady)
    ]
    with Image.open(run.samples / "step-00000000-00.png") as ours, Image.open(io.BytesIO(ready[0].png)) as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_events_tell_every_step_and_validation(finished: tuple[Path, RunFolder, Path]) -> None:
    _, run, _ = finished
    steps = events(run, "step")
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert all(event.loss > 0 and event.norm > 0 and event.memory > 0 for event in steps)
    assert [event.step for event in events(run, "validated")] == [0, 3, 6]
    assert [event.stage for event in events(run, "stage")] == [
        "latents",
        "train",
    ]  # captions are encoded live: the encoder learns


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sprout"])
def test_every_family_and_layout_trains(family: str, tmp_path: Path) -> None:
    root = studio(tmp_path / "s", family, model=tiny_file(family) if family != "sprout" else None)
    network = {"rank": 2, "layers": "attention+feed-forward+conv", "cross_attention": family != "sd2"}
    run = run_in(root, settings(text_encoder=family == "sdxl", steps=2, network=network))
    path = train(run)
    header = read_header(path)
    meta = header["__metadata__"]
    tensors = load_file(path)
    assert Library(Paths(root)).lora("tiny").problem is None
    versions = {"sd2": ("sd_v2", "True"), "sdxl": ("sdxl_base_v1-0", "False"), "sprout": ("sd_v1", "False")}
    assert (meta["ss_base_model_version"], meta["ss_v2"]) == versions[family]
    if family == "sdxl":
        assert "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in tensors
        assert {"lora_te1", "lora_te2"} <= {key.partition("_text")[0] for key in tensors}
    assert any("_attn2_" in key for key in tensors) == (family != "sd2")
    assert json.loads(meta["ss_network_args"]).get("cross_attention") == (None if family != "sd2" else "False")
    if family == "sd2":
        assert meta["modelspec.prediction_type"] == "v" and meta["ss_v_parameterization"] == "True"
        assert len(meta["ss_sd_model_hash"]) == 8 and len(meta["ss_new_sd_model_hash"]) == 64
    assert all(
        float(value) == 2 for key, value in tensors.items() if key.endswith(".alpha")
    )  # alpha left out: the rank


def test_a_dora_trains_and_is_used_by_the_engine(tmp_path: Path) -> None:
    root = studio(tmp_path / "s", "sd1")
    path = train(
        run_in(
            root,
            settings(
                steps=3,
                optimizer={"learning_rate": 1e-2},
                network={"kind": "dora", "rank": 2, "alpha": 4, "layers": "attention+feed-forward+conv"},
            ),
        )
    )
    tensors = load_file(path)
    lengths = {key: value.shape for key, value in tensors.items() if key.endswith("dora_scale")}
    assert len(lengths) == len(tensors) // 4
    assert lengths["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale"] == (64, 1)
    assert lengths["lora_unet_mid_block_resnets_0_conv1.dora_scale"] == (64, 1, 1, 1)
    assert Library(Paths(root)).lora("tiny").problem is None  # what it does was compared when it was written
    assert json.loads(read_header(path)["__metadata__"]["ss_network_args"])["dora_wd"] == "True"


def test_sdxl_with_conv_in_plain_diffusers_equals_ours(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    root = studio(tmp_path / "s", "sdxl")
    path = train(
        run_in(
            root,
            settings(
                steps=2, optimizer={"learning_rate": 1e-2}, network={"rank": 2, "layers": "attention+feed-forward+conv"}
            ),
        )
    )
    state, alphas = StableDiffusionXLPipeline.lora_state_dict(
        str(path), unet_config=tiny_components("sdxl")["unet"].config
    )
    unet = UNet2DConditionModel.from_pretrained(root / "checkpoints" / "tiny" / "unet")
    StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, unet)
    ours = load_checkpoint(tiny_info(root / "checkpoints" / "tiny"), CPU, torch.float32)
    added = ours.added_conditions(torch.ones(1, 64), 64, 64)
    text = torch.randn(1, 77, 96, generator=torch.Generator().manual_seed(2))
    plain = ask(ours.unet, text, added)
    LoraStack(ours).apply([LoraWeights(path, 1.0, 1.0)])
    assert not torch.allclose(ask(ours.unet, text, added), plain, atol=1e-4)
    assert torch.allclose(ask(ours.unet, text, added), ask(unet, text, added), atol=1e-4)


def test_a_taken_name_gets_a_number_and_the_other_file_stays(tmp_path: Path) -> None:
    root = studio(tmp_path / "s")
    (root / "loras").mkdir()
    (root / "loras" / "tiny.safetensors").write_bytes(b"mine")
    run = run_in(root, settings(steps=1))
    path = train(run)
    assert path.name == "tiny-1.safetensors"
    assert (root / "loras" / "tiny.safetensors").read_bytes() == b"mine"
    assert read_header(path)["__metadata__"]["ss_output_name"] == "tiny"
    assert train(run) == path  # finished already: nothing new
    assert sorted(file.name for file in (root / "loras").iterdir()) == ["tiny-1.safetensors", "tiny.safetensors"]


def test_frozen_encoders_and_the_autoencoder_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may still hold their weights when training begins, also not what remembers places of LoRAs."""
    root = studio(tmp_path / "s")
    held: list[weakref.ref[torch.nn.Parameter]] = []
    real = base_module.load_base

    def watched(context: TrainingContext, name: str, *, frozen_unet: bool) -> base_module.Base:
        base = real(context, name, frozen_unet=frozen_unet)
        held.extend(
            weakref.ref(weight)
            for module in (base.model.vae, *base.model.text_encoders)
            for weight in module.parameters()
        )
        return base

    monkeypatch.setattr("studio.training.methods.lora.method.load_base", watched)
    alive: list[int] = []
    real_step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *rest: (alive.append(sum(ref() is not None for ref in held)), real_step(self, *rest))[1],
    )
    train(run_in(root, settings(steps=1)))
    assert len(held) > 50 and alive == [0]


def test_a_bf16_base_still_has_fp32_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = studio(tmp_path / "s")
    seen: list[set[torch.dtype]] = []
    from studio.training.methods.lora import method as lora_method

    real = lora_method.add_adapter

    def watched(module: Any, *rest: Any) -> Any:
        trained = real(module, *rest)
        seen.append({layer.down.dtype for layer in trained} | {layer.up.dtype for layer in trained})
        seen.append({value.dtype for name, value in module.named_parameters() if "lora_" not in name})
        return trained

    monkeypatch.setattr(lora_method, "add_adapter", watched)
    config = settings(steps=2)
    train(run_in(root, {**config, "precision": "bf16"}))
    assert seen == [{torch.float32}, {torch.bfloat16}]


def test_a_base_for_inpainting_is_refused_and_so_is_an_unknown_one(tmp_path: Path) -> None:
    from studio.errors import IncompatibleFile, UnknownModel

    root = studio(tmp_path / "s", "sd1-inpaint")
    with pytest.raises(IncompatibleFile, match="inpainting"):
        train(run_in(root, settings()))
    with pytest.raises(UnknownModel, match="nothing"):
        train(run_in(root, settings(model="nothing"), "other"))


def test_hardware_of_the_run_is_the_products(tmp_path: Path) -> None:
    run = run_in(studio(tmp_path / "s"), settings())
    base = base_module.load_base(TrainingContext(run.config(), run), "tiny", frozen_unet=True)
    assert base.hardware == Hardware(CPU, torch.float32, torch.float32, "sdpa")
    assert base.identity == base.info.model_id and len(base.identity) == 12


def test_weights_that_train_are_not_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packed ones would pass no gradients on."""
    monkeypatch.setattr(packing, "PACKED_FROM", 1)
    run = run_in(studio(tmp_path / "s"), settings())
    unet = base_module.load_base(TrainingContext(run.config(), run), "tiny", frozen_unet=True).unet
    assert not [layer for layer in unet.modules() if isinstance(layer, packing.PackedConv2d)]
    assert not any(weight.is_mkldnn for weight in unet.parameters())
