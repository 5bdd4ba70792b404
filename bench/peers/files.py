"""The model files of the comparison: `python -m bench.peers.files FOLDER real|tiny NAME...`, in a process that gives its memory back.

All weights are random and seeded, float16 on disk. A checkpoint is a diffusers folder and, where `single` is among the names, also one
file in the original layout, for those who read nothing else; a LoRA is in kohya's naming, on the attention layers of U-Net and text encoder.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bench._models import THIN, find_model, random_sd15
from bench.peers.workloads import CHECKPOINTS, LORA_FILES, LORAS, SD15, SINGLE, SINGLE_FILES, SPROUT
from studio.families.configs import shipped_config
from studio.families.layout import clip_sources, unet_sources, vae_sources
from studio.families.signature import UNET_PREFIX, VAE_PREFIX

TEXT_PREFIX = "cond_stage_model.transformer.text_model."
RANK = 8
_WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_ADAPTED = re.compile(r"attn\d?\.(to_[qkv]|to_out\.0|[qkv]_proj|out_proj)\.weight$")
_STRENGTH = 0.05
"""How large a LoRA's change is beside the weights it changes."""


def make(root: Path, names: list[str], *, tiny: bool) -> None:
    """Write what is named and not there yet below `root`."""
    for seed, name in enumerate(SD15):
        folder = root / CHECKPOINTS / name
        if name in names and not folder.exists():
            random_sd15(folder, THIN if tiny else None, seed=seed)
            _complete(folder)
            if SINGLE in names:
                (root / SINGLE_FILES).mkdir(exist_ok=True)
                save_file(_original(folder), root / SINGLE_FILES / f"{name}.safetensors")
    for seed, name in enumerate(LORAS):
        file = root / LORA_FILES / f"{name}.safetensors"
        if name in names and not file.exists():
            file.parent.mkdir(exist_ok=True)
            facts = {"ss_network_dim": str(RANK), "ss_base_model_version": "sd_v1"}
            save_file(_lora(root / CHECKPOINTS / SD15[0], seed), file, facts)


def _complete(folder: Path) -> None:
    """Add what diffusers' own pipeline wants besides: the tokenizer, and that there is no safety checker."""
    shutil.copytree(find_model(SPROUT).path + "/tokenizer", folder / "tokenizer")
    file = folder / "model_index.json"
    absent = {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    index = {**json.loads(file.read_text()), **absent, "tokenizer": ["transformers", "CLIPTokenizer"]}
    file.write_text(json.dumps({**index, "requires_safety_checker": False}))


def _part(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return load_file(folder / part / f"{_WEIGHTS[part]}.safetensors")


def _original(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of the folder under the names of the original layout."""
    unet, vae, text = (_part(folder, part) for part in ("unet", "vae", "text_encoder"))
    places = (
        (unet, unet_sources(unet, shipped_config("sd1", "unet"), UNET_PREFIX)),
        (vae, vae_sources(vae, shipped_config("sd1", "vae"), VAE_PREFIX)),
        (text, clip_sources(text, TEXT_PREFIX)),
    )
    found = {sources[key].key: tensor for weights, sources in places for key, tensor in weights.items()}
    for key, tensor in found.items():
        if ".mid.attn_1." in key and tensor.ndim == 2:  # convolutions of 1 x 1 there
            found[key] = tensor[:, :, None, None]
    return {key: tensor.contiguous() for key, tensor in found.items()}


def _lora(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """Random factors for every attention layer, scaled by its weights."""
    drawn = torch.Generator().manual_seed(seed)
    tensors = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        for key, weight in _part(folder, part).items():
            if not _ADAPTED.search(key):
                continue
            name = prefix + key.removeprefix("text_model.").removesuffix(".weight").replace(".", "_")
            size = _STRENGTH * float(weight.float().std()) / RANK**0.5
            tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, weight.shape[1], generator=drawn).half()
            tensors[f"{name}.lora_up.weight"] = (torch.randn(weight.shape[0], RANK, generator=drawn) * size).half()
            tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
    return tensors


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[3:], tiny=sys.argv[2] == "tiny")
