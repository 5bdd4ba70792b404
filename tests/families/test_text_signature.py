"""Text encoders in files of their own are known by their header, whatever stands before their keys."""

from __future__ import annotations

from typing import Any

import pytest

from studio.families.text_signature import describe_text_encoder


def header(*keys: tuple[str, list[int]]) -> dict[str, Any]:
    return {key: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for key, shape in keys}


def transformers(prefix: str, width: int = 768, layers: int = 12, rows: int = 49408) -> dict[str, Any]:
    """The keys of transformers' text model that tell it, as in clip_l.safetensors (`text_model.`) and in checkpoints."""
    return header(
        (f"{prefix}embeddings.token_embedding.weight", [rows, width]),
        (f"{prefix}embeddings.position_embedding.weight", [77, width]),
        *((f"{prefix}encoder.layers.{layer}.mlp.fc1.weight", [4 * width, width]) for layer in range(layers)),
        *((f"{prefix}encoder.layers.{layer}.mlp.fc2.weight", [width, 4 * width]) for layer in range(layers)),
    )


def open_clip(prefix: str, width: int = 1280, layers: int = 32) -> dict[str, Any]:
    """OpenCLIP's, as in checkpoints of SD 2.x (`cond_stage_model.model.`) and in its own files."""
    return header(
        (f"{prefix}token_embedding.weight", [49408, width]),
        (f"{prefix}positional_embedding", [77, width]),
        (f"{prefix}text_projection", [width, width]),
        *((f"{prefix}transformer.resblocks.{layer}.ln_1.weight", [width]) for layer in range(layers)),
    )


@pytest.mark.parametrize("prefix", ["text_model.", "", "cond_stage_model.transformer.text_model.", "te1.text_model."])
def test_transformers_layout(prefix: str) -> None:
    found = describe_text_encoder(transformers(prefix))
    assert (found.layout, found.prefix, found.width, found.layers) == ("clip", prefix, 768, 12)
    assert found.problem is None
    sources = found.sources(
        ["text_model.final_layer_norm.bias", "encoder.layers.0.mlp.fc1.weight", "text_projection.weight"]
    )
    root = prefix.removesuffix("text_model.")
    assert [source.key for source in sources.values()] == [
        f"{prefix}final_layer_norm.bias",
        f"{prefix}encoder.layers.0.mlp.fc1.weight",
        f"{root}text_projection.weight",
    ]


@pytest.mark.parametrize("prefix", ["", "model.", "cond_stage_model.model.", "text."])
def test_open_clip_layout(prefix: str) -> None:
    found = describe_text_encoder(open_clip(prefix))
    assert (found.layout, found.prefix, found.width, found.layers) == ("open_clip", prefix, 1280, 32)
    assert found.problem is None
    sources = found.sources(["text_model.encoder.layers.3.self_attn.v_proj.bias", "text_projection.weight"])
    assert [(source.key, source.third, source.transposed) for source in sources.values()] == [
        (f"{prefix}transformer.resblocks.3.attn.in_proj_bias", 2, False),
        (f"{prefix}text_projection", None, True),
    ]


def test_what_else_is_in_the_file_does_not_matter() -> None:
    more = header(("vision_model.encoder.layers.0.mlp.fc1.weight", [8, 4]), ("logit_scale", []))
    assert describe_text_encoder({**transformers("text_model."), **more}).problem is None


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({**transformers("a."), **open_clip("b.")}, "holds 2 text encoders"),
        (transformers("", rows=32000), "Its table has 32,000 tokens"),
        (header(("text_model.embeddings.token_embedding.weight", [49408, 768])), "no layers"),
        (header(("shared.weight", [32128, 4096])), "T5"),
        (header(("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", [4, 320])), "This is a LoRA"),
        (
            header(("decoder.conv_in.weight", [512, 4, 3, 3])),
            "holds no CLIP text encoder; its first keys are decoder.conv_in.weight",
        ),
        ({}, "holds no CLIP text encoder"),
        ({"token_embedding.weight": {"shape": "x"}, "__metadata__": []}, "holds no CLIP text encoder"),
    ],
)
def test_what_is_none_is_told(head: dict[str, Any], words: str) -> None:
    found = describe_text_encoder(head)
    assert found.problem is not None and words in found.problem
