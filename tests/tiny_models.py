"""Tiny random models of every family, as diffusers folders and as original-layout single files, LoRAs and embeddings for them.

All are made once per process below one temporary folder that goes with it, seeded, in about a tenth of a second each; asking
again gives the same path, so a test that changes a file must copy it first. Same architecture as the real thing, only thinner.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from studio.families import describe_checkpoint, describe_embedding, describe_folder, describe_lora
from studio.schema.models import ModelInfo, ModelKind
from tests import tiny_original as original

FAMILIES = ("sd1", "sd2", "sdxl", "sd1-inpaint", "sprout", "sdxl_refiner", "sd1-edit")
_UNET: dict[str, dict[str, Any]] = {
    "sd1": {"attention_head_dim": 8, "cross_attention_dim": 32},
    "sd2": {"attention_head_dim": [1, 1, 1, 1], "cross_attention_dim": 64, "use_linear_projection": True},
    "sd1-inpaint": {"attention_head_dim": 8, "cross_attention_dim": 32, "in_channels": 9},
    "sd1-edit": {"attention_head_dim": 8, "cross_attention_dim": 32, "in_channels": 8},
    "sdxl": {
        "block_out_channels": (32, 32, 64), "attention_head_dim": [1, 1, 1], "cross_attention_dim": 96, "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": [1, 1, 2],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 64 + 6 * 256,
    },
    "sdxl_refiner": {
        "block_out_channels": (32, 32, 64, 64), "attention_head_dim": [1, 1, 1, 1], "cross_attention_dim": 64, "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": 2,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 64 + 5 * 256,
    },
    "sprout": {
        "block_out_channels": (16, 24, 32), "attention_head_dim": 4, "cross_attention_dim": 32, "norm_num_groups": 8, "sample_size": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}  # fmt: skip
_TEXT: dict[str, tuple[dict[str, Any], ...]] = {
    "sd1": ({"hidden_size": 32},),
    "sd2": ({"hidden_size": 64, "hidden_act": "gelu"},),
    "sdxl": ({"hidden_size": 32}, {"hidden_size": 64, "hidden_act": "gelu", "projection_dim": 64}),
}
_TEXT |= {
    "sd1-inpaint": _TEXT["sd1"],
    "sd1-edit": _TEXT["sd1"],
    "sprout": _TEXT["sd1"],
    "sdxl_refiner": _TEXT["sdxl"][1:],
}


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


@functools.cache
def tiny_components(family: str) -> dict[str, Any]:
    """The modules: unet, vae, text_encoder and for SDXL text_encoder_2 (its refiner has only that); float32, eval mode. Shared: do not change them."""
    return _seeded(FAMILIES.index(family), lambda: _make(family))


def _make(family: str) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "sample_size": 8, **_UNET[family]}
    levels = (16, 32, 32) if family == "sprout" else (32, 32, 32, 64)
    vae = {"block_out_channels": levels, "down_block_types": ("DownEncoderBlock2D",) * len(levels),
           "up_block_types": ("UpDecoderBlock2D",) * len(levels), "layers_per_block": 1, "latent_channels": 4,
           "norm_num_groups": 1 if family == "sprout" else 32, "mid_block_add_attention": family != "sprout",
           "scaling_factor": {"sdxl": 0.13025, "sdxl_refiner": 0.13025, "sprout": 0.37}.get(family, 0.18215)}  # fmt: skip
    made: dict[str, Any] = {"unet": UNet2DConditionModel(**unet), "vae": AutoencoderKL(**vae)}
    for index, options in enumerate(_TEXT[family], start=family == "sdxl_refiner"):
        config = CLIPTextConfig(**{"num_hidden_layers": 3, "num_attention_heads": 1, "intermediate_size": 64, "bos_token_id": 49406,
                                   "eos_token_id": 49407, "projection_dim": 32, **options})  # fmt: skip
        made["text_encoder_2" if index else "text_encoder"] = (CLIPTextModelWithProjection if index else CLIPTextModel)(
            config
        )
    return {name: module.eval().requires_grad_(False) for name, module in made.items()}


def scheduler_config(family: str) -> dict[str, Any]:
    """What goes into scheduler/scheduler_config.json."""
    return {"_class_name": "EulerDiscreteScheduler" if family.startswith("sdxl") else "DDIMScheduler", "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "beta_end": 0.020 if family == "sprout" else 0.012, "num_train_timesteps": 1000,
            "prediction_type": "v_prediction" if family == "sd2" else "epsilon"}  # fmt: skip


@functools.cache
def tiny_folder(family: str) -> Path:
    """A diffusers folder (without tokenizer)."""
    folder = _root() / f"{family}-folder"
    modules = tiny_components(family)
    for name, module in modules.items():
        module.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config(family)))
    index = {
        name: ["transformers" if "text" in name else "diffusers", type(module).__name__]
        for name, module in modules.items()
    }
    pipeline = {
        "sdxl": "StableDiffusionXLPipeline",
        "sd1-inpaint": "StableDiffusionInpaintPipeline",
        "sd1-edit": "StableDiffusionInstructPix2PixPipeline",
        "sdxl_refiner": "StableDiffusionXLImg2ImgPipeline",
    }.get(family, "StableDiffusionPipeline")
    index["scheduler"] = ["diffusers", scheduler_config(family)["_class_name"]]
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": pipeline, **index, "safety_checker": [None, None]})
    )
    if family == "sprout":
        preview = {"factors": [[0.1 * row, 0.2, -0.1] for row in range(4)], "bias": [0.0, 0.1, 0.2]}
        (folder / "preview.json").write_text(json.dumps(preview))
    return folder


@functools.cache
def tiny_file(family: str) -> Path:
    """The same weights in one original-layout .safetensors file, with the kinds of extra keys that real ones carry."""
    path = _root() / f"{family}-file.safetensors"
    save_file({key: value.contiguous() for key, value in original_state(family).items()}, path)
    return path


def original_state(family: str) -> dict[str, torch.Tensor]:
    """All tensors of `tiny_file`, fresh copies. The sprout has no original layout."""
    modules = tiny_components(family)
    unet = modules["unet"]
    attention = [kind != "UpBlock2D" for kind in unet.config.up_block_types]
    parts = {
        "model.diffusion_model.": original.original_unet(unet.state_dict(), 1, attention),
        "first_stage_model.": tiny_vae_state(family),
    }
    text = next(module for name, module in modules.items() if "text" in name).state_dict()
    if family == "sdxl_refiner":
        parts["conditioner.embedders.0."] = original.original_open_clip(text)
    elif family == "sdxl":
        parts["conditioner.embedders.0."] = original.original_clip(text)
        parts["conditioner.embedders.1."] = original.original_open_clip(modules["text_encoder_2"].state_dict())
    elif family == "sd2":
        parts["cond_stage_model."] = _seeded(7, lambda: original.original_open_clip(text, extra_layers=1))
    else:
        parts["cond_stage_model."] = original.original_clip(text)
    state = {prefix + key: value.clone() for prefix, part in parts.items() for key, value in part.items()}
    return state | {
        "alphas_cumprod": torch.rand(1000),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(3),
    }


def tiny_vae_state(family: str) -> dict[str, torch.Tensor]:
    """The autoencoder in the original layout, without prefix."""
    vae = tiny_components(family)["vae"]
    return original.original_vae(vae.state_dict(), len(vae.config.block_out_channels))


@functools.cache
def tiny_vae_file(family: str) -> Path:
    """A separate VAE file as people download them: original layout, no prefix, other weights than the checkpoint's."""
    path = _root() / f"{family}-vae.safetensors"
    state = {key: (value * 1.01).contiguous() for key, value in tiny_vae_state(family).items()}
    save_file(state, path)
    return path


@functools.cache
def tiny_lora(
    family: str,
    naming: str = "kohya",
    rank: int = 4,
    alpha: float = 2.0,
    parts: tuple[str, ...] = ("unet", "te"),
    seed: int = 0,
) -> Path:
    """A LoRA on the attention layers of U-Net and text encoder(s). naming: "kohya", or "peft" (diffusers names with metadata)."""
    path = _root() / f"{family}-{naming}-{rank}-{alpha}-{'-'.join(parts)}-{seed}.safetensors"
    modules = tiny_components(family)
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, Any] = {}
    for component, module in modules.items():
        if component == "vae" or ("te" if "text" in component else component) not in parts:
            continue
        layers = {
            name: layer
            for name, layer in module.named_modules()
            if "attn" in name and isinstance(layer, torch.nn.Linear)
        }
        kinds = sorted({name.rpartition("attn")[2].partition(".")[2] for name in layers})
        metadata |= {f"{component}.r": rank, f"{component}.lora_alpha": alpha, f"{component}.target_modules": kinds}
        for name, layer in layers.items():
            down, up = _seeded(seed + len(tensors), lambda layer=layer: _factors(layer, rank))
            tensors |= _named(family, component, name, naming, down, up, alpha)
    base = {"sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}.get(family, "sd_v1")
    kohya = {"ss_network_dim": str(rank), "ss_base_model_version": base}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(metadata)} if naming == "peft" else kohya)
    return path


@functools.cache
def tiny_embedding(family: str, vectors: int = 3, key: str = "emb_params", seed: int = 0) -> Path:
    """An embedding for the tiny model's text encoder(s), as strong as its own tokens' vectors; `key` is what a single tensor is called."""
    path = _root() / f"{family}-{vectors}-{seed}.safetensors"
    widths = [options["hidden_size"] for options in _TEXT[family]]
    drawn = _seeded(seed + 100, lambda: [torch.randn(vectors, width) for width in widths])
    save_file(dict(zip(("clip_l", "clip_g") if len(drawn) > 1 else (key,), drawn, strict=True)), path)
    return path


def _factors(layer: torch.nn.Linear, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rank, layer.in_features) / rank, torch.randn(layer.out_features, rank) * 0.1


def _named(
    family: str, component: str, name: str, naming: str, down: torch.Tensor, up: torch.Tensor, alpha: float
) -> dict[str, torch.Tensor]:
    if "text" in component:
        name = "text_model." + name.removeprefix("text_model.")
    if naming == "peft":
        return {f"{component}.{name}.lora_A.weight": down, f"{component}.{name}.lora_B.weight": up}
    second = "2" if component.endswith("2") else "1"
    prefix = "lora_unet" if component == "unet" else f"lora_te{second if family == 'sdxl' else ''}"
    key = f"{prefix}_{name.replace('.', '_')}"
    return {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}


def read_header(path: Path) -> dict[str, Any]:
    """A file's header in the form `describe_checkpoint` takes."""
    with path.open("rb") as stream:
        return dict(json.loads(stream.read(int.from_bytes(stream.read(8), "little"))))


def tiny_info(source: Path | str, kind: ModelKind = "checkpoint") -> ModelInfo:
    """The library's entry for a model of this module, or for a copy of one. A family's name stands for its folder."""
    path = tiny_folder(source) if isinstance(source, str) else source
    common: dict[str, Any] = {"kind": kind, "name": path.stem, "path": str(path), "mtime": path.stat().st_mtime}
    if kind == "lora":
        lora = describe_lora(read_header(path))
        return ModelInfo(**common, layout="file", size=path.stat().st_size, family=lora.family, problem=lora.problem)
    if kind == "embedding":
        embedding = describe_embedding(read_header(path))
        return ModelInfo(**common, layout="file", size=path.stat().st_size, family=embedding.family, problem=embedding.problem,
                         vectors=embedding.vectors, text_widths=embedding.widths)  # fmt: skip
    found = describe_folder(path) if path.is_dir() else describe_checkpoint(read_header(path))
    size = sum(file.stat().st_size for file in path.rglob("*.safetensors")) if path.is_dir() else path.stat().st_size
    return ModelInfo(**common, layout="folder" if path.is_dir() else "file", size=size, family=found.family, native_size=found.native_size,
                     prediction_type=found.prediction_type, inpaint=found.variant == "inpaint", edit=found.variant == "edit", problem=found.problem,
                     text_widths=found.text_widths)  # fmt: skip


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors file."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
