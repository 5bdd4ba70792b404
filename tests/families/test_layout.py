"""Key maps and fitted configurations, against the full-size models' published shapes. No memory: all on the meta device."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch

from studio.families import family
from studio.families.configs import shipped_config, text_config, unet_config, vae_config
from studio.families.header import Shapes
from studio.families.layout import (
    Source,
    clip_sources,
    old_vae_name,
    open_clip_sources,
    renamed,
    unet_names,
    unet_sources,
    vae_sources,
)
from tests import tiny_original as original

# Parameter counts of the published models (model cards and `num_parameters()`).
PARAMETERS = {
    ("sd1", "unet"): 859_520_964,
    ("sd2", "unet"): 865_910_724,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl_refiner", "unet"): 2_259_526_660,
    ("sd1", "vae"): 83_653_863,
    ("sdxl", "vae"): 83_653_863,
    ("sd1", "text_encoder"): 123_060_480,
    ("sd2", "text_encoder"): 340_387_840,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
}
# Keys and shapes as they stand in v1-5-pruned, v2-1_768, sd_xl_base_1.0 and sd_xl_refiner_1.0.
KNOWN: dict[str, dict[str, tuple[int, ...]]] = {
    "sd1": {
        "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.11.0.in_layers.2.weight": (1280, 1280, 3, 3),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        "output_blocks.11.1.proj_out.weight": (320, 320, 1, 1),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    },
    "sd2": {
        "output_blocks.11.1.proj_out.weight": (320, 320),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
    },
    "sdxl": {
        "input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
        "output_blocks.2.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.5.2.conv.weight": (640, 640, 3, 3),
        "output_blocks.8.0.out_layers.3.weight": (320, 320, 3, 3),
        "label_emb.0.0.weight": (1280, 2816),
    },
    "sdxl_refiner": {
        "input_blocks.4.1.transformer_blocks.3.attn2.to_k.weight": (768, 1280),
        "input_blocks.11.0.in_layers.2.weight": (1536, 1536, 3, 3),
        "middle_block.1.transformer_blocks.3.attn2.to_k.weight": (1536, 1280),
        "output_blocks.2.1.conv.weight": (1536, 1536, 3, 3),
        "output_blocks.5.2.conv.weight": (1536, 1536, 3, 3),
        "label_emb.0.0.weight": (1536, 2560),
    },
}


@functools.cache
def on_meta(name: str, part: str) -> dict[str, torch.Tensor]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = shipped_config(name, part)
    with torch.device("meta"):
        if part in ("unet", "vae"):
            cls = UNet2DConditionModel if part == "unet" else AutoencoderKL
            module: Any = cls(
                **{key: value for key, value in config.items() if key in inspect.signature(cls.__init__).parameters}
            )
        else:
            text = CLIPTextConfig(
                **{key: value for key, value in config.items() if key not in ("architectures", "model_type")}
            )
            module = (CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel)(text)
    return dict(module.state_dict())


def shapes(state: dict[str, torch.Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name, part", PARAMETERS)
def test_shipped_configurations_build_the_published_models(name: str, part: str) -> None:
    assert sum(value.numel() for value in on_meta(name, part).values()) == PARAMETERS[name, part]


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sdxl_refiner"])
def test_the_unet_of_a_full_size_file(name: str) -> None:
    config, state = shipped_config(name, "unet"), on_meta(name, "unet")
    file = shapes(original.original_unet(state, 2, [kind != "UpBlock2D" for kind in config["up_block_types"]]))
    for key, shape in KNOWN[name].items():
        assert file[key] == shape, key
    sources = unet_sources(state, config)
    assert sorted(source.key for source in sources.values()) == sorted(file)
    assert all(file[source.key] == tuple(state[key].shape) for key, source in sources.items())
    fitted = unet_config(family(name), {f"p.{key}": shape for key, shape in file.items()}, "p.")
    per_level = fitted.pop("transformer_layers_per_block")
    given = config.pop("transformer_layers_per_block")
    heads, given_heads = fitted.pop("attention_head_dim"), config.pop("attention_head_dim")
    assert fitted == config
    if isinstance(given, int):  # levels without attention have no depth of their own; the middle has that of the last
        given = [1 if kind == "DownBlock2D" else given for kind in config["down_block_types"][:-1]] + [given]
    assert per_level == given
    assert heads == given_heads


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_the_autoencoder_of_a_full_size_file(name: str) -> None:
    config, state = shipped_config(name, "vae"), on_meta(name, "vae")
    file = shapes(original.original_vae(state, 4))
    assert file["encoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert file["decoder.up.3.upsample.conv.weight"] == (512, 512, 3, 3)
    assert file["decoder.up.0.block.0.nin_shortcut.weight"] == (128, 256, 1, 1)
    assert file["encoder.down.2.downsample.conv.weight"] == (512, 512, 3, 3)
    sources = vae_sources(state, config)
    assert sorted(source.key for source in sources.values()) == sorted(file)
    for layout in (file, shapes(state)):
        assert vae_config(family(name), layout, "") == config | {"mid_block_add_attention": True}


def test_clip_l_of_a_full_size_file() -> None:
    state = on_meta("sd1", "text_encoder")
    file = shapes(original.original_clip(state))
    sources = clip_sources(state, "transformer.text_model.")
    assert {source.key for source in sources.values()} == file.keys() - {
        "transformer.text_model.embeddings.position_ids"
    }
    encoder = family("sd1").encoders[0]
    assert text_config(family("sd1"), encoder, file, "transformer.text_model.") == shipped_config("sd1", "text_encoder")


@pytest.mark.parametrize("name, part, unused", [("sd2", "text_encoder", 1), ("sdxl", "text_encoder_2", 0)])
def test_open_clip_of_a_full_size_file(name: str, part: str, unused: int) -> None:
    state = on_meta(name, part)
    with torch.device("meta"):
        file = shapes(original.original_open_clip(state, extra_layers=unused))
    encoder = family(name).encoders[-1]
    assert encoder.unused_layers == unused
    assert text_config(family(name), encoder, file, "model.") == shipped_config(name, part)
    sources = open_clip_sources(state, "model.")
    last = f"resblocks.{len({key.split('.')[3] for key in file if 'resblocks' in key}) - 1}."
    idle = (
        {key for key in file if unused and last in key}
        | {"model.logit_scale"}
        | ({"model.text_projection"} if unused else set())
    )
    assert {source.key for source in sources.values()} == file.keys() - idle


def test_fused_projections_are_taken_by_thirds_and_the_last_one_turned() -> None:
    found = open_clip_sources(["text_model.encoder.layers.3.self_attn.v_proj.bias", "text_projection.weight"], "m.")
    assert list(found.values()) == [
        Source("m.transformer.resblocks.3.attn.in_proj_bias", third=2),
        Source("m.text_projection", transposed=True),
    ]


def test_a_name_that_is_not_listed_stays() -> None:
    names = unet_names(shipped_config("sd1", "unet"))
    assert renamed("controlnet.weight", names) == "controlnet.weight"
    assert renamed("down_blocks.1.attentions.1.proj_in.bias", names) == "input_blocks.5.1.proj_in.bias"


def test_old_names_of_autoencoder_attention() -> None:
    start = "decoder.mid_block.attentions.0."
    assert [old_vae_name(f"{start}{name}") for name in ("to_q.weight", "to_out.0.bias", "group_norm.bias")] == [
        f"{start}query.weight", f"{start}proj_attn.bias", f"{start}group_norm.bias",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "without",
    [
        "input_blocks.0.0.weight",
        "middle_block.1.proj_in.weight",
        "input_blocks.5.0.out_layers.3.weight",
        "out.2.weight",
    ],
)
def test_a_file_without_a_block_has_no_configuration(without: str) -> None:
    state = on_meta("sd1", "unet")
    file = shapes(original.original_unet(state, 2, [False, True, True, True]))
    levels = {
        key: shape
        for key, shape in file.items()
        if not key.startswith(without.rpartition(".0.out_layers")[0] or without)
    }
    with pytest.raises(ValueError, match=r"it has no p\.|levels of different depth"):
        unet_config(family("sd1"), {f"p.{key}": shape for key, shape in levels.items()}, "p.")
