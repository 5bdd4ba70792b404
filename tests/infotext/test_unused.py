"""Every parameter of AUTOMATIC1111 and its relatives is applied, or named in a note, or changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from studio.infotext import parse_infotext
from studio.infotext.unused import FEATURES, SHOWN, unused_notes
from studio.schema.request import make_request

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, RNG: CPU"

APPLIED = {
    "Steps: 33": {"steps": 33},
    "Sampler: Heun": {"sampler": "Heun"},
    "Schedule type: Karras": {"schedule": "Karras"},
    "CFG scale: 4.5": {"cfg_scale": 4.5},
    "Seed: 77": {"seed": 77},
    "Size: 640x768": {"width": 640, "height": 768},
    "Model: sd15": {"model": "sd15"},
    "Model hash: 6ce0161689": {"model": "6ce0161689"},
    "VAE: a.safetensors, VAE hash: 0123456789": {"vae": "a [0123456789]"},
    "Clip skip: 2": {"clip_skip": 2},
    "DeepCache interval: 3": {"deep_cache": 3},
    "VAE Encoder: TAESD, VAE Decoder: TAESD": {"vae_encoder": "TAESD", "vae_decoder": "TAESD"},
    "Token merging ratio: 0.5": {"token_merging_ratio": 0.5},
    "FP8 weight: Enable for SDXL, Cache FP16 weight for LoRA: True": {
        "fp8_weight": "Enable for SDXL",
        "cache_fp16_weight": True,
    },
    "FP8 weight: Enable": {"fp8_weight": "Enable", "cache_fp16_weight": False},
    "Face restoration: GFPGANv1.3.safetensors": {"face_restoration": "GFPGANv1.3"},
    "Face restoration: CodeFormer, CodeFormer weight: 0.25, Face restoration file: codeformer": {
        "face_restoration": "CodeFormer",
        "code_former_weight": 0.25,
    },
    "RNG: NV": {"rng": "NV"},
    "Emphasis: No norm": {"emphasis": "No norm"},
    "Variation seed: 5, Variation seed strength: 0.5": {"variation": {"seed": 5, "strength": 0.5}},
    "Seed resize from: 64x72": {"seed_resize": {"width": 64, "height": 72}},
    "Refiner: x [0123456789], Refiner switch at: 0.7": {
        "refiner": {"checkpoint": "x [0123456789]", "switch_at": 0.7, "by_steps": False}
    },
    "Refiner: x.safetensors, Refiner switch by sampling steps: True": {
        "refiner": {"checkpoint": "x", "switch_at": 0.8, "by_steps": True}
    },
    "Old prompt editing timelines: True": {"old_prompt_editing": True},
    "Pad conds: True": {"pad_conds": True},
    "Pad conds v0: True": {"pad_conds_v0": True},
    "Downcast alphas_cumprod: True": {"downcast_alphas": True},
    "Tiling: True": {"tiling": True},
    "SDXL crop top: 8, SDXL crop left: 16": {"sdxl_crop_top": 8, "sdxl_crop_left": 16},
    "Noise Schedule: Zero Terminal SNR": {"noise_schedule": "Zero Terminal SNR"},
}
OPTIONS = {
    "ENSD: 31337": {"ensd": 31337},
    "Eta: 0.5": {"eta": 0.5},
    "Eta DDIM: 0.5": {"eta": 0.5},
    "Sigma churn: 2": {"s_churn": 2.0},
    "Sigma tmin: 2": {"s_tmin": 2.0},
    "Sigma tmax: 2": {"s_tmax": 2.0},
    "Sigma noise: 1.5": {"s_noise": 1.5},
    "Schedule min sigma: 0.1": {"sigma_min": 0.1},
    "Schedule max sigma: 10": {"sigma_max": 10.0},
    "Schedule rho: 5": {"rho": 5.0},
    "Beta schedule alpha: 0.5": {"beta_dist_alpha": 0.5},
    "Beta scheduler alpha: 0.5": {"beta_dist_alpha": 0.5},
    "Beta schedule beta: 0.7": {"beta_dist_beta": 0.7},
    "Beta scheduler beta: 0.7": {"beta_dist_beta": 0.7},
    "Discard penultimate sigma: True": {"discard_penultimate": True},
    "SGM noise multiplier: True": {"sgm_noise_multiplier": True},
    "UniPC variant: bh2": {"uni_pc_variant": "bh2"},
    "UniPC skip type: logSNR": {"uni_pc_skip_type": "logSNR"},
    "UniPC order: 2": {"uni_pc_order": 2},
    "UniPC lower order final: False": {"uni_pc_lower_order_final": False},
    "NGMS: 2.5": {"s_min_uncond": 2.5},
    "NGMS all steps: True": {"s_min_uncond_all": True},
    "Skip Early CFG: 0.2": {"skip_early_cond": 0.2},
}
NAMED = [
    "Image CFG scale: 1.5",
    *("Denoising strength: 0.7", "Conditional mask weight: 0.5", "Init image hash: abcdef", "Noise multiplier: 1.1"),
    *("Token merging ratio hr: 0.5", "Extra noise: 0.1"),
    *("Hires upscale: 2", "Hires resize: 8x8", "Hires steps: 5", "Hires upscaler: Latent", "Hires checkpoint: a"),
    *("Hires sampler: Euler", "Hires schedule type: Karras", 'Hires prompt: "a, b"', "Hires negative prompt: c"),
    *(
        "Hires CFG Scale: 3",
        "Hires refiner: a",
        "Hires Module 1: b",
    ),
    *("Mask mode: Inpaint not masked", "Mask blur: 4", "Mask rounding: 1"),
    *("Inpaint area: Only masked", "Masked area padding: 16", "Masked content: fill"),
    *("Hypernet strength: 0.5", "Noise Schedule: Zero Terminal"),
    *("VAE Encoder: Approx", "VAE Decoder: Approx", "Script: X/Y/Z plot"),
    *("X Type: Seed", 'X Values: "1, 2"', 'Fixed X Values: "1, 2"', "Y Type: Steps", "Z Values: 1"),
    *("SD upscale upscaler: Lanczos", "SD upscale overlap: 64", "ADetailer model: face.pt", "Distilled CFG Scale: 3.5"),
    *('ControlNet 0: "Module: canny, Model: c [0123456789], Weight: 1"', "Sharpness: 2", "Some new thing: 3"),
]
SILENT = ["Version: v1.10.1", "User: me", "VAE Encoder: Full", "Tiling: False", "Refiner: None", "Hires resize: 0x0"]


def request_of(pair: str) -> dict[str, Any]:
    key = pair.partition(":")[0]
    kept = ", ".join(part for part in LINE.split(", ") if not part.startswith(f"{key}:"))
    parsed = parse_infotext(f"a\n{kept}, {pair}")
    assert parsed.notes == []
    make_request(parsed.request)
    return parsed.request


@pytest.mark.parametrize("pair", APPLIED)
def test_it_is_applied(pair: str) -> None:
    request = request_of(pair)
    assert {name: request.get(name) for name in APPLIED[pair]} == APPLIED[pair]


@pytest.mark.parametrize("pair", OPTIONS)
def test_it_is_applied_to_the_sampler(pair: str) -> None:
    assert request_of(pair)["sampler_options"] == OPTIONS[pair]


@pytest.mark.parametrize("pair", NAMED)
def test_it_is_named_in_a_note(pair: str) -> None:
    parsed = parse_infotext(f"a\n{LINE}, {pair}")
    key = pair.partition(":")[0]
    assert any(key in note for note in parsed.notes)
    make_request(parsed.request)


@pytest.mark.parametrize("pair", SILENT)
def test_what_changes_nothing_is_not_mentioned(pair: str) -> None:
    assert parse_infotext(f"a\n{LINE}, {pair}").notes == []


def test_a_strength_belongs_to_the_pass_it_stands_with() -> None:
    whole = parse_infotext(f"a\n{LINE}, Denoising strength: 0.5, Hires upscale: 2")
    assert whole.request["hires"]["denoising_strength"] == 0.5
    assert whole.notes == []
    (half,) = unused_notes({"Hires upscale": "2"}, ())
    assert half == "There is no hires. fix without its strength and its size here; not used: Hires upscale 2."
    assert unused_notes({"Denoising strength": "0.5"}, ()) == [
        "There is no picture to begin with here; not used: Denoising strength 0.5."
    ]


def test_a_long_list_is_cut_but_names_every_feature() -> None:
    pairs = {f"ADetailer value {i}": "1" for i in range(SHOWN + 3)} | {"ControlNet 0": "r" * 200}
    first, second = unused_notes(pairs, ())
    assert "and 3 more" in first
    assert "no ControlNet" in second and len(second) < 120


def test_what_is_read_is_no_feature_that_is_missing() -> None:
    for beginnings in FEATURES.values():
        assert unused_notes(dict.fromkeys(beginnings, "x"), set(beginnings)) == []
