"""The model files of the comparison on a card: `python -m bench.peers.card_files FOLDER real|tiny DEVICE NAME...`.

Random and seeded, float16 on disk, made where they are painted with: drawing the 3.5 billion weights of SDXL's shapes takes a processor half a
minute. One shard is in memory at a time, and a module never is.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench._models import THIN
from bench.peers.workloads import CARD_SD15, CARD_SDXL, CHECKPOINTS
from studio.engine.hardware import choose_hardware
from studio.errors import SettingsError
from studio.families.configs import shipped_config
from studio.families.spec import DATA

Shapes = Mapping[str, tuple[int, ...]]
Changes = Mapping[str, Mapping[str, Any]]

FAMILIES = {CARD_SD15: "sd1", CARD_SDXL: "sdxl"}
SHARD_BYTES = 2**30
_BIAS = 0.02
_MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unet": UNet2DConditionModel.from_config,
    "vae": AutoencoderKL.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "text_encoder_2": lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
}
_THIN_SDXL: Changes = {
    "unet": {
        "block_out_channels": (32, 32, 64), "layers_per_block": 1, "cross_attention_dim": 64, "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": (1, 1, 2), "projection_class_embeddings_input_dim": 32 + 6 * 256,
    },
    "vae": THIN["vae"],
    "text_encoder": THIN["text_encoder"],
    "text_encoder_2": {**THIN["text_encoder"], "projection_dim": 32},
}  # fmt: skip
_THIN = {CARD_SD15: THIN, CARD_SDXL: _THIN_SDXL}


def make(root: Path, names: list[str], device: torch.device, *, tiny: bool) -> None:
    """Write the checkpoints `names` of `FAMILIES` below `root`."""
    for seed, (name, family) in enumerate(FAMILIES.items()):
        if name in names:
            changes = _THIN[name] if tiny else {}
            write_checkpoint(root / CHECKPOINTS / name, family, device, changes, seed=seed, shard_bytes=SHARD_BYTES)


def write_checkpoint(
    folder: Path, family: str, device: torch.device, changes: Changes, *, seed: int, shard_bytes: int
) -> None:
    """A diffusers folder of the family's shapes that the program and diffusers' own pipeline load; `changes` as in `random_sd15`.

    Weights are uniform within 1 / sqrt(inputs), as PyTorch begins; norms are ones. They depend on the kind of `device`.
    """
    drawn = torch.Generator(device).manual_seed(seed)
    index = json.loads((DATA / family / "model_index.json").read_text())
    for part, make_module in _MAKERS.items():
        if part not in index:
            continue
        config = shipped_config(family, part) | dict(changes.get(part, {}))
        with torch.device("meta"):
            shapes = {key: tuple(tensor.shape) for key, tensor in make_module(config).state_dict().items()}
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        _write_weights(folder / part / stem, shapes, drawn, shard_bytes)
    _write_rest(folder, family, index)


def _write_weights(stem: Path, shapes: Shapes, drawn: torch.Generator, shard_bytes: int) -> None:
    """One file, or several and what says where each weight is, as diffusers and transformers name them."""
    shards = _shards(shapes, shard_bytes)
    places: dict[str, str] = {}
    for number, keys in enumerate(shards, start=1):
        name = f"{stem.name}-{number:05}-of-{len(shards):05}" if len(shards) > 1 else stem.name
        tensors = {key: _random(key, shapes[key], drawn) for key in keys}
        save_file(tensors, stem.with_name(f"{name}.safetensors"), {"format": "pt"})
        places |= dict.fromkeys(keys, f"{name}.safetensors")
    if len(shards) > 1:
        size = 2 * sum(math.prod(shape) for shape in shapes.values())
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": places})
        stem.with_name(f"{stem.name}.safetensors.index.json").write_text(text)


def _shards(shapes: Shapes, most: int) -> list[list[str]]:
    """The weights in parts of at most `most` bytes; one that is larger stands alone."""
    shards: list[list[str]] = [[]]
    room = most
    for key, shape in shapes.items():
        size = 2 * math.prod(shape)
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(key)
        room -= size
    return shards


def _random(key: str, shape: tuple[int, ...], drawn: torch.Generator) -> torch.Tensor:
    """float16 on the CPU."""
    if len(shape) == 1 and key.endswith(".weight"):
        return torch.ones(shape, dtype=torch.float16)
    bound = _BIAS if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
    return torch.empty(shape, device=drawn.device).uniform_(-bound, bound, generator=drawn).half().cpu()


def _write_rest(folder: Path, family: str, index: dict[str, Any]) -> None:
    """The scheduler, the tokenizers (the second pads with another word), and that there is no safety checker."""
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(shipped_config(family, "scheduler")))
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        if name not in index:
            continue
        shutil.copytree(DATA / "clip_tokenizer", folder / name)
        for file in (folder / name / "tokenizer_config.json", folder / name / "special_tokens_map.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": pad}))
    absent = {part: [None, None] for part in ("safety_checker", "feature_extractor", "image_encoder")}
    checked = {} if family == "sdxl" else {"requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps({**absent, **index, **checked}))


def main(arguments: list[str]) -> int:
    """1, and why on stderr, when the device is not there."""
    folder, size, device, *names = arguments
    try:
        hardware = choose_hardware("cuda" if device == "cuda" else "cpu")
    except SettingsError as error:
        print(error.message, file=sys.stderr)
        return 1
    make(Path(folder), names, hardware.device, tiny=size == "tiny")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
