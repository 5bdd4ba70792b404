"""Diffusers weights -> the original (LDM / OpenCLIP) layout of single-file checkpoints, for making test files.

Written from the public layout on its own, key by key, without `studio.families.layout`: tests of the loader compare the two.
Source of the layout: CompVis/stable-diffusion, Stability-AI/generative-models and mlfoundations/open_clip module names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

State = dict[str, torch.Tensor]

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
           "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
_UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
              "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
              "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip


def original_unet(state: State, layers: int, attention_up: Iterable[bool]) -> State:
    """`layers`: resnets a level on the way down; `attention_up`: for each up level, whether it has attention."""
    has_attention, step = list(attention_up), layers + 1

    def rename(key: str) -> str:
        module, leaf = key.rsplit(".", 1)
        if module in _UNET_ENDS:
            return f"{_UNET_ENDS[module]}.{leaf}"
        side, *rest = key.split(".")
        if side == "mid_block":
            kind, index, tail = rest[0], int(rest[1]), ".".join(rest[2:])
            return f"middle_block.1.{tail}" if kind == "attentions" else f"middle_block.{2 * index}.{_inner(tail)}"
        level, kind, index, tail = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
        if kind == "downsamplers":
            return f"input_blocks.{step * (level + 1)}.0.{tail.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{step * level + layers}.{2 if has_attention[level] else 1}.{tail}"
        block = (
            f"input_blocks.{step * level + index + 1}"
            if side == "down_blocks"
            else f"output_blocks.{step * level + index}"
        )
        return f"{block}.1.{tail}" if kind == "attentions" else f"{block}.0.{_inner(tail)}"

    return {rename(key): value for key, value in state.items()}


def _inner(tail: str) -> str:
    name, leaf = tail.rsplit(".", 1)
    return f"{_RESNET[name]}.{leaf}"


def original_vae(state: State, levels: int) -> State:
    """The autoencoder; its 1x1 attention layers are convolutions in the original."""
    result: State = {}
    for key, value in state.items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = re.sub(r"attn_1\.to_([qkv])\.", r"attn_1.\1.", name).replace("to_out.0", "proj_out")
            if value.ndim == 2:
                value = value[:, :, None, None]
        result[name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")] = value
    return result


def bare(state: State) -> State:
    """A CLIP text model's keys without the `text_model.` that transformers before 5.6 put in front of them."""
    return {key.removeprefix("text_model."): value for key, value in state.items()}


def original_clip(state: State) -> State:
    """The Hugging Face layout that SD 1.x and SDXL keep inside their files, below `transformer.`."""
    renamed = {f"transformer.text_model.{key}": value for key, value in bare(state).items()}
    positions = renamed["transformer.text_model.embeddings.position_embedding.weight"].shape[0]
    return {**renamed, "transformer.text_model.embeddings.position_ids": torch.arange(positions)[None]}


def original_open_clip(state: State, extra_layers: int = 0) -> State:
    """OpenCLIP's layout below `model.`; `extra_layers` more blocks of noise, as SD 2 files carry one that is not used."""
    state, result = bare(state), {}
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    layers = sorted({int(key.split(".")[2]) for key in state if key.startswith("encoder.layers.")})
    for layer in layers:
        source, target = f"encoder.layers.{layer}.", f"model.transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            for old, new in names.items():
                result[f"{target}{new}.{leaf}"] = state[f"{source}{old}.{leaf}"]
            parts = [state[f"{source}self_attn.{which}_proj.{leaf}"] for which in "qkv"]
            result[f"{target}attn.in_proj_{leaf}"] = torch.cat(parts)
    for extra in range(extra_layers):
        last = f"model.transformer.resblocks.{layers[-1]}."
        block = {key: torch.randn_like(value) for key, value in result.items() if key.startswith(last)}
        result |= {
            key.replace(last, f"model.transformer.resblocks.{len(layers) + extra}."): value
            for key, value in block.items()
        }
    result["model.token_embedding.weight"] = state["embeddings.token_embedding.weight"]
    result["model.positional_embedding"] = state["embeddings.position_embedding.weight"]
    result["model.ln_final.weight"], result["model.ln_final.bias"] = (
        state["final_layer_norm.weight"],
        state["final_layer_norm.bias"],
    )
    width = state["final_layer_norm.weight"].shape[0]
    projection = state.get("text_projection.weight", torch.randn(width, width))
    result["model.text_projection"], result["model.logit_scale"] = projection.T.contiguous(), torch.tensor(4.6)
    return result
