"""Where single-file checkpoints keep each weight: diffusers names -> original (LDM, OpenCLIP) names.

The maps are built from the diffusers configuration, level by level, so pruned and thinner models work like the full ones.
They are also what LoRA files of SDXL are named after. Sources: CompVis/stable-diffusion `openaimodel.py` and
`diffusionmodules/model.py`, open_clip `transformer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Names = dict[str, str]


@dataclass(frozen=True)
class Source:
    """Where one diffusers weight comes from: a key of the file, and what to take of its tensor.

    `third` picks rows of a fused query/key/value tensor (0, 1 or 2); `transposed` swaps the two axes.
    """

    key: str
    third: int | None = None
    transposed: bool = False


_UNET_ENDS: Names = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET: Names = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# Names of the autoencoder's attention before diffusers 0.18, still in the folders of SD 1.x.
_OLD_VAE_ATTENTION: Names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_OPEN_CLIP_LAYER: Names = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet_names(config: Mapping[str, Any]) -> Names:
    """U-Net modules, diffusers -> original. `config` is a diffusers U-Net configuration."""
    names, layers = dict(_UNET_ENDS), int(config["layers_per_block"])
    levels, step = len(config["down_block_types"]), layers + 1
    for level, kind in enumerate(config["down_block_types"]):
        for index in range(layers):
            block = f"input_blocks.{1 + level * step + index}"
            names |= _resnet(f"down_blocks.{level}.resnets.{index}", f"{block}.0")
            if "CrossAttn" in kind:
                names[f"down_blocks.{level}.attentions.{index}"] = f"{block}.1"
        if level < levels - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * step}.0.op"
    names |= _resnet("mid_block.resnets.0", "middle_block.0") | _resnet("mid_block.resnets.1", "middle_block.2")
    names["mid_block.attentions.0"] = "middle_block.1"
    for level, kind in enumerate(config["up_block_types"]):
        attention = "CrossAttn" in kind
        for index in range(step):
            block = f"output_blocks.{level * step + index}"
            names |= _resnet(f"up_blocks.{level}.resnets.{index}", f"{block}.0")
            if attention:
                names[f"up_blocks.{level}.attentions.{index}"] = f"{block}.1"
        if level < levels - 1:
            names[f"up_blocks.{level}.upsamplers.0.conv"] = (
                f"output_blocks.{level * step + layers}.{1 + attention}.conv"
            )
    return names


def vae_names(config: Mapping[str, Any]) -> Names:
    """Autoencoder modules, diffusers -> original. `config` is a diffusers AutoencoderKL configuration."""
    names: Names = {}
    layers, levels = int(config["layers_per_block"]), len(config["block_out_channels"])
    for side, count in (("encoder", layers), ("decoder", layers + 1)):
        for level in range(levels):
            ours, theirs = ("down", level) if side == "encoder" else ("up", levels - 1 - level)
            for index in range(count):
                source = f"{side}.{ours}_blocks.{level}.resnets.{index}"
                names |= _mapped(source, f"{side}.{ours}.{theirs}.block.{index}", _VAE_RESNET)
            names[f"{side}.{ours}_blocks.{level}.{ours}samplers.0"] = f"{side}.{ours}.{theirs}.{ours}sample"
        for index in range(2):
            names |= _mapped(f"{side}.mid_block.resnets.{index}", f"{side}.mid.block_{index + 1}", _VAE_RESNET)
        names |= _mapped(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", _VAE_ATTENTION)
        names[f"{side}.conv_norm_out"] = f"{side}.norm_out"
    return names


def renamed(key: str, names: Names) -> str:
    """`key` with its longest listed module prefix replaced; unchanged where none is listed."""
    module = key
    while module:
        module = module.rpartition(".")[0]
        if module in names:
            return names[module] + key[len(module) :]
    return key


def unet_sources(keys: Iterable[str], config: Mapping[str, Any], prefix: str = "") -> dict[str, Source]:
    """For every parameter name of a diffusers U-Net, its place in an original-layout file."""
    names = unet_names(config)
    return {key: Source(prefix + renamed(key, names)) for key in keys}


def vae_sources(keys: Iterable[str], config: Mapping[str, Any], prefix: str = "") -> dict[str, Source]:
    """For every parameter name of a diffusers autoencoder, its place in an original-layout file."""
    names = vae_names(config)
    return {key: Source(prefix + renamed(key, names)) for key in keys}


def old_vae_name(key: str) -> str:
    """The name that diffusers before 0.18 gave to an autoencoder weight."""
    for new, old in _OLD_VAE_ATTENTION.items():
        if f".attentions.0.{new}." in key:
            return key.replace(f".{new}.", f".{old}.")
    return key


def clip_sources(keys: Iterable[str], prefix: str = "") -> dict[str, Source]:
    """For every parameter name of a CLIP text model, its place below `prefix` in the Hugging Face layout.

    transformers 5.6 took `text_model.` out of `CLIPTextModel`'s names; both spellings are understood.
    """
    return {key: Source(prefix + key.removeprefix("text_model.")) for key in keys}


def open_clip_sources(keys: Iterable[str], prefix: str = "") -> dict[str, Source]:
    """For every parameter name of a CLIP text model, its place below `prefix` in OpenCLIP's layout."""
    return {key: _open_clip_source(key.removeprefix("text_model."), prefix) for key in keys}


def _open_clip_source(key: str, prefix: str) -> Source:
    ends = {
        "embeddings.token_embedding.weight": Source(f"{prefix}token_embedding.weight"),
        "embeddings.position_embedding.weight": Source(f"{prefix}positional_embedding"),
        "final_layer_norm.weight": Source(f"{prefix}ln_final.weight"),
        "final_layer_norm.bias": Source(f"{prefix}ln_final.bias"),
        "text_projection.weight": Source(f"{prefix}text_projection", transposed=True),
    }
    if key in ends:
        return ends[key]
    _, _, layer, *rest = key.split(".")
    module, leaf, block = ".".join(rest[:-1]), rest[-1], f"{prefix}transformer.resblocks.{layer}"
    if module in _OPEN_CLIP_LAYER:
        return Source(f"{block}.{_OPEN_CLIP_LAYER[module]}.{leaf}")
    third = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj").index(module)
    return Source(f"{block}.attn.in_proj_{leaf}", third=third)


def _resnet(ours: str, theirs: str) -> Names:
    return _mapped(ours, theirs, _UNET_RESNET)


def _mapped(ours: str, theirs: str, inner: Names) -> Names:
    return {f"{ours}.{new}": f"{theirs}.{old}" for new, old in inner.items()}
