"""LoRA signatures and the three ways LoRA files name their keys."""

from __future__ import annotations

from typing import Any

import pytest

from studio.families import describe_lora
from studio.families.lora_keys import parse_lora_key
from tests.tiny_models import read_header, tiny_lora

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
FLAT = BLOCK.replace(".", "_")


def header(shapes: dict[str, list[int]], **metadata: str) -> dict[str, Any]:
    return {key: {"dtype": "F16", "shape": shape} for key, shape in shapes.items()} | {"__metadata__": metadata}


def kohya(layer: str, down: list[int], up: list[int], **more: list[int]) -> dict[str, list[int]]:
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": []} | {
        f"{layer}.{key}": shape for key, shape in more.items()
    }


@pytest.mark.parametrize(
    "key, part, layer, role, naming",
    [
        (f"lora_unet_{FLAT}_attn1_to_q.lora_down.weight", "unet", f"{FLAT}_attn1_to_q", "down", "kohya"),
        (f"lora_unet_{FLAT}_attn1_to_q.alpha", "unet", f"{FLAT}_attn1_to_q", "alpha", "kohya"),
        ("lora_unet_mid_block_resnets_0_conv1.lora_mid.weight", "unet", "mid_block_resnets_0_conv1", "mid", "kohya"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "text_encoder", "encoder_layers_0_mlp_fc1", "up", "kohya"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "text_encoder", "encoder_layers_0_mlp_fc1", "alpha", "kohya"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "text_encoder_2", "encoder_layers_0_mlp_fc1", "alpha", "kohya"),
        (f"base_model.model.{BLOCK}.attn1.to_q.lora_A.weight", "unet", f"{FLAT}_attn1_to_q", "down", "peft"),
        (f"base_model.model.{BLOCK}.attn1.to_q.lora_A.default.weight", "unet", f"{FLAT}_attn1_to_q", "down", "peft"),
        (f"{BLOCK}.attn1.to_q.lora_B.weight", "unet", f"{FLAT}_attn1_to_q", "up", "peft"),
        (f"unet.{BLOCK}.attn1.to_q.lora_B.weight", "unet", f"{FLAT}_attn1_to_q", "up", "diffusers"),
        (f"unet.{BLOCK}.attn1.to_q.lora.down.weight", "unet", f"{FLAT}_attn1_to_q", "down", "diffusers"),
        (f"unet.{BLOCK}.attn1.processor.to_q_lora.down.weight", "unet", f"{FLAT}_attn1_to_q", "down", "diffusers"),
        (f"unet.{BLOCK}.attn1.processor.to_out_lora.up.weight", "unet", f"{FLAT}_attn1_to_out_0", "up", "diffusers"),
        (f"{BLOCK}.attn1.processor.to_out_lora.up.weight", "unet", f"{FLAT}_attn1_to_out_0", "up", "peft"),
        (
            "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.up.weight",
            "text_encoder", "encoder_layers_1_self_attn_out_proj", "up", "diffusers",
        ),
        (
            "text_encoder_2.text_model.encoder.layers.1.self_attn.k_proj.lora_linear_layer.up.weight",
            "text_encoder_2", "encoder_layers_1_self_attn_k_proj", "up", "diffusers",
        ),
    ],
)  # fmt: skip
def test_every_naming_is_understood(key: str, part: str, layer: str, role: str, naming: str) -> None:
    found = parse_lora_key(key)
    assert found is not None
    assert (found.part, found.layer, found.role, found.naming) == (part, layer, role, naming)


@pytest.mark.parametrize(
    "key", ["", "weight", "lora_unet_x", "x.lora_down.weight", "lora_unet_x.hada_w1_a", "lora_unet_x.lora_down.bias"]
)
def test_other_keys_are_not(key: str) -> None:
    assert parse_lora_key(key) is None


@pytest.mark.parametrize(
    "family, parts, modules",
    [("sdxl", {"unet", "text_encoder", "text_encoder_2"}, 112), ("sd1", {"unet", "text_encoder"}, 92)],
)
def test_tiny_files(family: str, parts: set[str], modules: int) -> None:
    for naming, called in (("kohya", "kohya"), ("peft", "diffusers")):
        found = describe_lora(read_header(tiny_lora(family, naming, rank=3)))
        assert (found.naming, found.algorithm, found.parts, found.ranks, found.modules) == (
            called,
            "lora",
            parts,
            (3,),
            modules,
        )
        assert found.problem is None


@pytest.mark.parametrize("width, family", [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (96, "unknown")])
def test_the_family_comes_from_the_width_of_the_text_states(width: int, family: str) -> None:
    for key in (f"lora_unet_{FLAT}_attn2_to_k.lora_down.weight", f"unet.{BLOCK}.attn2.to_v.lora_A.weight"):
        assert describe_lora(header({key: [8, width]})).family == family


@pytest.mark.parametrize(
    "said, family",
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "unknown"),
    ],
)
def test_metadata_says_the_family_where_shapes_do_not(said: dict[str, str], family: str) -> None:
    assert (
        describe_lora(header(kohya("lora_unet_mid_block_attentions_0_proj_in", [4, 64], [64, 4]), **said)).family
        == family
    )


@pytest.mark.parametrize(
    "prefix, width, family", [("lora_te_", 768, "sd1"), ("lora_te_", 1024, "sd2"), ("lora_te1_", 768, "sdxl")]
)
def test_a_lora_on_the_text_encoder_alone(prefix: str, width: int, family: str) -> None:
    layer = f"{prefix}text_model_encoder_layers_0_self_attn_q_proj"
    found = describe_lora(header(kohya(layer, [4, width], [width, 4])))
    assert (found.family, found.parts) == (family, {"text_encoder"})


@pytest.mark.parametrize(
    "extra, algorithm, words",
    [
        ({"hada_w1_a": [64, 4], "hada_w2_a": [64, 4]}, "loha", "LoHa"),
        ({"lokr_w1": [8, 8], "lokr_w2_a": [8, 4]}, "lokr", "LoKr"),
        ({"a1.weight": [8, 8]}, "glora", "GLoRA"),
        ({"oft_blocks": [8, 8]}, "oft", "OFT"),
        ({"on_input": []}, "ia3", "IA3"),
        ({"diff": [64, 64]}, "full", "full weight differences"),
    ],
)
def test_other_kinds_of_adapters_are_named(extra: dict[str, list[int]], algorithm: str, words: str) -> None:
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    found = describe_lora(header({f"{layer}.{key}": shape for key, shape in extra.items()}))
    assert found.algorithm == algorithm
    assert words in (found.problem or "")


@pytest.mark.parametrize("key", ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.default.weight"])
def test_a_dora_is_known_by_its_magnitudes(key: str) -> None:
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    found = describe_lora(header(kohya(layer, [4, 64], [64, 4]) | {f"{layer}.{key}": [64, 1]}))
    assert (found.algorithm, found.modules, found.problem) == ("dora", 1, None)


def test_convolutions_make_it_a_locon() -> None:
    plain = kohya("lora_unet_mid_block_attentions_0_proj_in", [4, 64, 1, 1], [64, 4, 1, 1])
    assert describe_lora(header(plain)).algorithm == "lora"
    wide = kohya("lora_unet_mid_block_resnets_0_conv1", [8, 64, 3, 3], [64, 8, 1, 1])
    found = describe_lora(header(plain | wide))
    assert (found.algorithm, found.ranks, found.problem) == ("locon", (4, 8), None)


@pytest.mark.parametrize(
    "key, words",
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "Flux"),
        ("lora_te3_encoder_block_0.lora_down.weight", "Stable Diffusion 3"),
        ("transformer.blocks.0.attn.to_q.lora_A.weight", "transformer"),
        ("model.diffusion_model.input_blocks.0.0.weight", "no LoRA weights"),
    ],
)
def test_files_for_other_families_say_so(key: str, words: str) -> None:
    assert words in (describe_lora(header({key: [4, 64]})).problem or "")


def test_an_empty_header_is_no_lora() -> None:
    found = describe_lora({})
    assert (found.modules, found.naming, found.algorithm) == (0, "unknown", "unknown")
    assert "no LoRA weights" in (found.problem or "")
