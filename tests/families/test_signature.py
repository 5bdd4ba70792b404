"""Checkpoint and VAE signatures from headers alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.families import describe_checkpoint, describe_lora
from studio.families.signature import pickle_problem
from tests.tiny_models import read_header, tiny_file, tiny_lora, tiny_vae_file

UNET = "model.diffusion_model."


def header(shapes: dict[str, list[int]]) -> dict[str, Any]:
    return {key: {"dtype": "F16", "shape": shape} for key, shape in shapes.items()}


def changed(
    family: str, add: dict[str, list[int]] | None = None, without: str | None = None, meta: dict[str, str] | None = None
) -> dict[str, Any]:
    result = {
        key: entry for key, entry in read_header(tiny_file(family)).items() if not (without and key.startswith(without))
    }
    result |= {key: {"dtype": "F16", "shape": shape} for key, shape in (add or {}).items()}
    return result | ({"__metadata__": meta} if meta else {})


@pytest.mark.parametrize(
    "name, family, variant, size, prediction",
    [
        ("sd1", "sd1", "base", 512, "epsilon"),
        ("sd1-inpaint", "sd1", "inpaint", 512, "epsilon"),
        ("sd1-edit", "sd1", "edit", 512, "epsilon"),
        ("sd2", "sd2", "base", 768, "v_prediction"),
        ("sdxl", "sdxl", "base", 1024, "epsilon"),
        ("sdxl_refiner", "sdxl_refiner", "base", 1024, "epsilon"),
    ],
)
def test_a_checkpoint_of_each_family(name: str, family: str, variant: str, size: int, prediction: str) -> None:
    found = describe_checkpoint(read_header(tiny_file(name)))
    assert (found.kind, found.family, found.variant, found.native_size) == ("checkpoint", family, variant, size)
    assert (found.prediction_type, found.problem, found.zero_terminal_snr) == (prediction, None, False)
    assert found.parts >= {"unet", "vae", "text_encoder_2" if name == "sdxl_refiner" else "text_encoder"}


@pytest.mark.parametrize(
    "width, family", [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (1280, "sdxl_refiner"), (4096, "unknown")]
)
def test_without_text_encoder_the_width_of_the_text_states_tells_the_family(width: int, family: str) -> None:
    text = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    found = describe_checkpoint(header({f"{UNET}input_blocks.0.0.weight": [320, 4, 3, 3], text: [1280, width]}))
    assert found.family == family
    assert found.problem is not None


def test_files_say_themselves_that_they_predict_v_and_end_in_noise() -> None:
    marked = describe_checkpoint(changed("sdxl", {"v_pred": [0], "ztsnr": [0]}))
    assert (marked.prediction_type, marked.states_prediction, marked.zero_terminal_snr) == ("v_prediction", True, True)
    plain = describe_checkpoint(changed("sdxl"))
    assert (plain.prediction_type, plain.states_prediction) == ("epsilon", False)


@pytest.mark.parametrize(
    "meta, prediction",
    [
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.predict_key": "v"}, "v_prediction"),
        ({"modelspec.predict_key": "epsilon"}, "epsilon"),
        ({"ss_v_parameterization": "True"}, "v_prediction"),
        ({"ss_v_parameterization": "True", "modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
    ],
)
def test_metadata_says_how_a_model_predicts(meta: dict[str, str], prediction: str) -> None:
    found = describe_checkpoint(changed("sd2", meta=meta))
    assert (found.prediction_type, found.states_prediction) == (prediction, True)


@pytest.mark.parametrize("said, zero", [("True", True), ("False", False), ("None", False)])
def test_metadata_says_that_a_schedule_ends_in_noise(said: str, zero: bool) -> None:
    assert describe_checkpoint(changed("sdxl", meta={"ss_zero_terminal_snr": said})).zero_terminal_snr is zero


@pytest.mark.parametrize("said, size", [("640x640", 640), ("1e9x1", 512), ("99999x1", 512), ("", 512), ("12", 512)])
def test_the_stated_resolution_is_believed_within_reason(said: str, size: int) -> None:
    assert describe_checkpoint(changed("sd1", meta={"modelspec.resolution": said})).native_size == size


@pytest.mark.parametrize(
    "family, add, without, words",
    [
        ("sdxl", {}, "conditioner.embedders.1.", "no text_encoder_2"),
        ("sd1", {}, "first_stage_model.", "no vae"),
        ("sd1", {}, "cond_stage_model.", "32 wide"),
        ("sdxl", {"edm_mean": [4]}, None, "Playground"),
        ("sd1", {f"{UNET}time_embed.cond_proj.weight": [320, 256]}, None, "distilled guidance"),
        ("sd1", {"control_model.input_blocks.0.0.weight": [320, 4, 3, 3]}, None, "ControlNet"),
    ],
)
def test_checkpoints_that_cannot_be_painted_with_say_why(
    family: str, add: dict[str, list[int]], without: str | None, words: str
) -> None:
    found = describe_checkpoint(changed(family, add, without))
    assert (found.kind, words in (found.problem or "")) == ("checkpoint", True)


@pytest.mark.parametrize(
    "shapes, words",
    [
        ({f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.weight": [1]}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": [9, 3]}, "Flux"),
        ({"emb_params": [4, 768]}, "put it into the embeddings folder"),
        ({"clip_l": [4, 768], "clip_g": [4, 1280]}, "textual inversion"),
        ({"conv_in.weight": [320, 4, 3, 3]}, "bare U-Net"),
        ({"control_model.x": [1]}, "ControlNet"),
        ({"whatever": [1]}, "whatever"),
        ({}, "no tensors"),
    ],
)
def test_other_files_say_what_they_are(shapes: dict[str, list[int]], words: str) -> None:
    found = describe_checkpoint(header(shapes))
    assert (found.kind, words in (found.problem or "")) == ("other", True)


def test_the_refiner_is_recognised() -> None:
    header = read_header(tiny_file("sdxl_refiner"))
    found = describe_checkpoint(header)
    assert (found.family, found.variant, found.native_size) == ("sdxl_refiner", "base", 1024)
    assert found.problem is None
    bare = {key: entry for key, entry in header.items() if not key.startswith("conditioner.")}
    assert describe_checkpoint(bare).family == "unknown", "a thin one without its encoder has no width that tells"


def test_separate_autoencoders_are_of_no_family() -> None:
    found = describe_checkpoint(read_header(tiny_vae_file("sd1")))
    assert (found.kind, found.family, found.parts, found.problem) == ("vae", "unknown", {"vae"}, None)
    assert "16 latent channels" in (
        describe_checkpoint(header({"decoder.conv_in.weight": [512, 16, 3, 3]})).problem or ""
    )
    assert "no encoder" in (describe_checkpoint(header({"decoder.conv_in.weight": [512, 4, 3, 3]})).problem or "")


def test_a_lora_among_the_checkpoints_is_called_one() -> None:
    found = describe_checkpoint(read_header(tiny_lora("sdxl")))
    assert (found.kind, found.family) == ("lora", "sdxl")
    assert "loras folder" in (found.problem or "")


KEYS = st.sampled_from(
    ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight", "decoder.conv_in.weight",
     "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "unet.x.attn2.to_k.lora_A.weight", "__metadata__", "x.hada_w1_a",
     "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"]
) | st.text(max_size=30)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=8), child, max_size=3),
)
ENTRIES = JSON | st.fixed_dictionaries({"dtype": JSON, "shape": st.lists(st.integers(0, 4096), max_size=4)})


@given(st.dictionaries(KEYS, ENTRIES, max_size=6))
def test_no_header_makes_a_judgement_fail(data: dict[str, Any]) -> None:
    found = describe_checkpoint(data)
    assert found.problem is None or found.problem.endswith((".", "…"))
    assert describe_lora(data).modules >= 0


@pytest.mark.parametrize(
    "name", ["$(touch x).pt", "`touch x`.pt", 'a";touch x;".pt', "a'.pt", "a\nb.pt", "!!.pt", "-x.pt"]
)
def test_a_command_to_be_pasted_holds_no_name_that_a_shell_reads(name: str) -> None:
    assert pickle_problem(name).endswith("python launch.py convert FILE")


@pytest.mark.parametrize("name, word", [("a-1.ckpt", "a-1.ckpt"), ("my cat (2).pt", '"my cat (2).pt"')])
def test_the_advice_for_pickles(name: str, word: str) -> None:
    assert pickle_problem(name).endswith(f"python launch.py convert {word}")
