"""No parameter that AUTOMATIC1111 or Forge writes is dropped without a word: it changes the request, or a note names it."""

from __future__ import annotations

from typing import Any

import pytest

from studio.infotext import parse_infotext
from studio.schema.request import make_request

PROMPT = "a cat <lora:ink:1> soft"
PLAIN = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: oak, RNG: CPU"
LORAS, EMBEDDINGS = {"0123456789ab": "ink (new)"}, {"soft (v2)": "ba9876543210"}

BASE = """
Steps: 33 | Sampler: Heun | Schedule type: Karras | CFG scale: 4.5 | Distilled CFG Scale: 3.5 | Image CFG scale: 1.5 | Seed: 77
Face restoration: CodeFormer | Size: 640x768 | Model hash: 6ce0161689 | Model: ash | FP8 weight: Enable
FP8 weight: Enable + Cache FP16 weight for LoRA: True | VAE hash: 0123456789 | VAE: a.safetensors | Module 1: clip_l
Variation seed strength: 0.5 + Variation seed: 42 | Variation seed: 42 + Variation seed strength: 0.5 | Seed resize from: 64x72
Denoising strength: 0.7 | Conditional mask weight: 0.5 | Clip skip: 2 | ENSD: 31337 | Token merging ratio: 0.5
Token merging ratio hr: 0.5 | Init image hash: abcdef | RNG: NV | Tiling: True
"""
HIRES = """
Hires upscale: 2 | Hires resize: 1024x1024 | Hires steps: 5 | Hires upscaler: Latent | Hires checkpoint: elm | Hires sampler: Euler
Denoising strength: 0.5 + Hires upscale: 2 + Hires checkpoint: elm [0123456789]
Hires schedule type: Karras | Hires prompt: a dog | Hires negative prompt: fog | Hires CFG Scale: 3 | Hires refiner: elm
Hires Module 1: clip_l
"""
REFINER = """
Refiner: elm [0123456789] | Refiner: elm + Refiner switch at: 0.6 | Refiner: elm + Refiner switch by sampling steps: True
"""
INPAINT = """
Mask mode: Inpaint not masked | Mask blur: 4 | Inpaint area: Only masked | Masked area padding: 16 | Masked content: fill
Mask rounding: 1 | Noise multiplier: 1.1 | Extra noise: 0.1
"""
NETWORKS = """
Lora hashes: "ink: 0123456789ab" | TI hashes: "soft: ba9876543210" | TI: warm | Hypernet: h | Hypernet: h + Hypernet strength: 0.5
"""
SAMPLER = """
Eta: 0.5 | Eta DDIM: 0.5 | Sigma churn: 2 | Sigma tmin: 2 | Sigma tmax: 2 | Sigma noise: 1.5 | Schedule min sigma: 0.1
Schedule max sigma: 10 | Schedule rho: 5 | Beta schedule alpha: 0.5 | Beta schedule beta: 0.7 | Beta scheduler alpha: 0.5
Beta scheduler beta: 0.7 | Discard penultimate sigma: True | SGM noise multiplier: True | UniPC variant: bh2
UniPC skip type: logSNR | UniPC order: 2 | UniPC lower order final: False | Noise Schedule: Zero Terminal SNR | NGMS: 1
NGMS all steps: True | Skip Early CFG: 0.2
"""
TEXT = """
Emphasis: No norm | Pad conds: True | Pad conds v0: True | Old prompt editing timelines: True | Downcast alphas_cumprod: True
"""
VAE = "VAE Encoder: TAESD | VAE Decoder: TAESD"
SCRIPTS = """
Script: X/Y/Z plot | X Type: Seed | X Values: "1, 2" | Fixed X Values: "1, 2" | Y Type: Steps | Y Values: "8, 9" | Fixed Y Values: "8, 9"
Z Type: Eta | Z Values: "0, 1" | Fixed Z Values: "0, 1" | SD upscale upscaler: Lanczos | SD upscale overlap: 64
"""
OTHERS = """
Hashes: {"lora:ink": "0123456789ab"} | Civitai resources: [{"type": "lora", "modelName": "Wash", "weight": 0.8, "hash": "0123456789ab"}] | ADetailer model: face.pt
Lora_0 Model hash: 0123456789ab | ControlNet 0: "Module: canny, Model: c"
"""
LISTS = [BASE, HIRES, REFINER, INPAINT, NETWORKS, SAMPLER, TEXT, VAE, SCRIPTS, OTHERS]
PAIRS = [pair.strip() for each in LISTS for line in each.strip().splitlines() for pair in line.split(" | ")]
"""`Key: value`, or `Other: value + Key: value` for a key that says something only beside the other."""
CHANGES_NOTHING = ["Version: v1.10.1", "User: me"]


def read(*pairs: str) -> Any:
    named = {pair.partition(":")[0] for pair in pairs}
    kept = [pair for pair in PLAIN.split(", ") if pair.partition(":")[0] not in named]
    return parse_infotext(f"{PROMPT}\n{', '.join([*kept, *pairs])}", LORAS, EMBEDDINGS)


@pytest.mark.parametrize("sampler, eta", [("Euler a", 0.5), ("DDIM", 0.1)])
@pytest.mark.parametrize("pairs", [("Eta: 0.5", "Eta DDIM: 0.1"), ("Eta DDIM: 0.1", "Eta: 0.5")])
def test_of_two_etas_the_sampler_has_its_own(pairs: tuple[str, str], sampler: str, eta: float) -> None:
    assert read(f"Sampler: {sampler}", *pairs).request["sampler_options"] == {"eta": eta}


@pytest.mark.parametrize("pair", PAIRS)
def test_it_changes_the_request_or_is_named(pair: str) -> None:
    *beside, said = pair.split(" + ")
    key = said.partition(":")[0]
    parsed, without = read(*beside, said), read(*beside)
    make_request(parsed.request)
    changed = parsed.request != without.request
    assert changed or any(key in note for note in parsed.notes), parsed.notes


def test_a_checkpoint_of_the_second_pass_changes_the_request() -> None:
    on = ("Denoising strength: 0.5", "Hires upscale: 2")
    parsed = read(*on, "Hires checkpoint: elm [0123456789]")
    assert parsed.request["hires"] == {**read(*on).request["hires"], "checkpoint": "elm [0123456789]"}
    assert parsed.notes == read(*on).notes
    assert read(*on, "Hires checkpoint: Use same checkpoint").request == read(*on).request


def test_the_check_can_fail() -> None:
    for pair in CHANGES_NOTHING:
        parsed = read(pair)
        assert parsed.request == read().request
        assert not any(pair.partition(":")[0] in note for note in parsed.notes)
