"""The diffusers configuration of a single-file checkpoint: the family's shipped one, fitted to the shapes of the file.

The shipped folders (`data/sd1`, `data/sd2`, `data/sdxl`, `data/sdxl_refiner`) are complete enough for diffusers' own
`from_single_file(config=...)` as well. Fitting makes thinner and shallower models of the same design work: inpainting
U-Nets with nine input channels, distilled ones with fewer layers a block, tiny ones in tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.families.header import Shapes
from studio.families.spec import DATA, EncoderSpec, FamilySpec

Config = dict[str, Any]
_HEAD_WIDTH = 64


def shipped_config(name: str, component: str) -> Config:
    """`data/<family>/<component>/config.json`, or the scheduler's."""
    file = "scheduler_config.json" if component == "scheduler" else "config.json"
    data: Config = json.loads((DATA / name / component / file).read_text(encoding="utf-8"))
    return data


def unet_config(spec: FamilySpec, found: Shapes, prefix: str) -> Config:
    """Configuration of the U-Net whose original-layout keys stand below `prefix` in `found`.

    Raises ValueError when the blocks do not follow the design of the family.
    """
    config, inner = shipped_config(spec.name, "unet"), _below(found, prefix)
    levels = _levels([key for key in inner if key.startswith("input_blocks.")])
    counts = {len(blocks) for blocks in levels}
    if len(counts) != 1 or "input_blocks.0.0.weight" not in inner:
        raise ValueError("its U-Net has levels of different depth")
    channels = [inner[f"input_blocks.{blocks[0]}.0.out_layers.3.weight"][0] for blocks in levels]
    depths = [_depth(inner, f"input_blocks.{blocks[0]}.1.") for blocks in levels]
    up_depths = depths[::-1]
    # The blocks in the middle are as deep as the last level; where that has no attention (the refiner), its place tells theirs.
    middle = _depth(inner, "middle_block.1.")
    config |= {
        "in_channels": inner["input_blocks.0.0.weight"][1],
        "out_channels": inner["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": counts.pop(),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in up_depths],
        "transformer_layers_per_block": [max(depth, 1) for depth in depths[:-1]] + [depths[-1] or middle],
        "attention_head_dim": spec.heads or [max(1, width // _HEAD_WIDTH) for width in channels],
        "use_linear_projection": len(inner["middle_block.1.proj_in.weight"]) == 2,
        "cross_attention_dim": inner["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
    }
    if spec.size_conditioning:
        config["projection_class_embeddings_input_dim"] = inner["label_emb.0.0.weight"][1]
    return config


def vae_config(spec: FamilySpec, found: Shapes, prefix: str) -> Config:
    """Configuration of the autoencoder whose keys, original or diffusers layout, stand below `prefix` in `found`."""
    config, inner = shipped_config(spec.name, "vae"), _below(found, prefix)
    original = "encoder.down.0.block.0.conv1.weight" in inner
    level = "encoder.down.{}.block.{}" if original else "encoder.down_blocks.{}.resnets.{}"
    attention = "encoder.mid.attn_1." if original else "encoder.mid_block.attentions.0."
    channels: list[int] = []
    while (key := level.format(len(channels), 0) + ".conv1.weight") in inner:
        channels.append(inner[key][0])
    if not channels:
        raise ValueError("its autoencoder has no blocks")
    layers = 0
    while level.format(0, layers) + ".conv1.weight" in inner:
        layers += 1
    config |= {
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": layers,
        "latent_channels": inner["decoder.conv_in.weight"][1],
        "mid_block_add_attention": any(key.startswith(attention) for key in inner),
    }
    return config


def text_config(spec: FamilySpec, encoder: EncoderSpec, found: Shapes, prefix: str) -> Config:
    """Configuration of the text encoder whose keys stand below `prefix` in `found`."""
    config, inner = shipped_config(spec.name, encoder.name), _below(found, prefix)
    if encoder.layout == "clip":
        embedding, layer, hidden = "embeddings.token_embedding.weight", "encoder.layers.", "mlp.fc1.weight"
        positions = inner["embeddings.position_embedding.weight"][0]
    else:
        embedding, layer, hidden = "token_embedding.weight", "transformer.resblocks.", "mlp.c_fc.weight"
        positions = inner["positional_embedding"][0]
    vocabulary, width = inner[embedding]
    layers = len({key.removeprefix(layer).partition(".")[0] for key in inner if key.startswith(layer)})
    config |= {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner[f"{layer}0.{hidden}"][0],
        "num_hidden_layers": layers - encoder.unused_layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": positions,
    }
    if encoder.pooled:
        config["projection_dim"] = inner["text_projection"][1]
    return config


def _below(found: Shapes, prefix: str) -> Mapping[str, tuple[int, ...]]:
    """The shapes below `prefix`; a look-up that fails names the key the file lacks."""

    class Inner(dict[str, tuple[int, ...]]):
        def __missing__(self, key: str) -> tuple[int, ...]:
            raise ValueError(f"it has no {prefix}{key}")

    return Inner({key.removeprefix(prefix): shape for key, shape in found.items() if key.startswith(prefix)})


def _levels(keys: list[str]) -> list[list[int]]:
    """Numbers of the residual blocks on the way down, grouped by resolution: `op` marks the step to the next one."""
    numbers = sorted({int(number) for key in keys if (number := key.split(".")[1]).isdigit()} - {0})
    steps = {int(key.split(".")[1]) for key in keys if key.split(".")[2:4] == ["0", "op"]}
    levels: list[list[int]] = [[]]
    for index in numbers:
        if index in steps:
            levels.append([])
        else:
            levels[-1].append(index)
    return [level for level in levels if level] or [[]]


def _depth(inner: Mapping[str, tuple[int, ...]], block: str) -> int:
    """How many transformer layers a block has; 0 for none."""
    start = f"{block}transformer_blocks."
    return len({key.removeprefix(start).partition(".")[0] for key in inner if key.startswith(start)})
