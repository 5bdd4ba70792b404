"""Texts of other programs: models and LoRAs named outside the prompt, and forms that A1111's own reader trips over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.infotext import ParsedInfotext, parse_infotext
from studio.infotext.dialects import MAX_LORAS, named_hashes, named_loras
from studio.schema.request import make_request

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, RNG: CPU"
LOCAL = {"0123456789ab": "here", "fedcba987654": "sub/other"}


def read(more: str, prompt: str = "a cat") -> ParsedInfotext:
    parsed = parse_infotext(f"{prompt}\n{LINE}, {more}", LOCAL)
    make_request(parsed.request)
    return parsed


def dumped(value: Any) -> str:
    return json.dumps(value)


def test_the_old_civitai_extension() -> None:
    hashes = {"model": "6CE0161689", "vae": "735e4c3a44", "lora:old name": "0123456789", "embed:bad": "ffffffffff"}
    parsed = read(f"Hashes: {dumped(hashes)}, Version: v1.6.0", "a <lora:old name:0.7>")
    assert parsed.pairs["Hashes"] == dumped(hashes)
    assert parsed.request["prompt"] == "a <lora:here:0.7>"
    assert parsed.request["model"] == "6ce0161689"
    assert parsed.request["vae"] == "735e4c3a44"


def test_what_the_text_names_itself_counts_more_than_hashes() -> None:
    hashes = dumped({"model": "6ce0161689", "vae": "735e4c3a44"})
    parsed = read(f"Model: m, Model hash: aaaaaaaaaa, VAE: v, VAE hash: bbbbbbbbbb, Hashes: {hashes}")
    assert (parsed.request["model"], parsed.request["vae"]) == ("m [aaaaaaaaaa]", "v [bbbbbbbbbb]")


def test_civitai_resources() -> None:
    resources = [
        {"type": "checkpoint", "modelName": "Real, Vis", "modelVersionName": "V6", "hash": "E6BB9EA85B"},
        {"type": "lora", "weight": 0.8, "modelVersionId": 9, "hash": "FEDCBA9876"},
        {"type": "lora", "weight": 0.5, "modelName": "Not <here>:", "hash": "1111111111"},
        {"type": "lora", "weight": 1, "hash": "2222222222"},
        {"type": "embed", "weight": 1.0, "modelVersionId": 250712, "modelName": "safe_neg", "modelVersionName": "v2"},
    ]
    parsed = read(f"Clip skip: 2, Civitai resources: {dumped(resources)}, Civitai metadata: {dumped({'a': [1, {}]})}")
    assert parsed.request["model"] == "Real, Vis [e6bb9ea85b]"
    assert parsed.request["prompt"] == "a cat <lora:sub/other:0.8> <lora:Not here:0.5>"
    assert parsed.request["clip_skip"] == 2
    notes = "\n".join(parsed.notes)
    assert "2222222222" in notes
    assert "embed 'safe_neg' v2" in notes
    assert "metadata" not in notes


def test_civitai_does_not_say_which_sampler() -> None:
    parsed = parse_infotext("a\nSteps: 20, Sampler: Undefined, CFG scale: 7, Seed: 1, Size: 512x512, RNG: CPU")
    assert "sampler" not in parsed.request
    assert parsed.notes == ["The text does not say which sampler it was (Undefined)."]


def test_numbered_loras() -> None:
    parsed = read(
        "Lora_0 Model name: x.safetensors, Lora_0 Model hash: 0123456789, Lora_0 Strength model: 0.8, "
        "Lora_0 Strength clip: 0.6, Lora_1 Model name: y.safetensors, Lora_2 Model hash: ffffffffff"
    )
    assert parsed.request["prompt"] == "a cat <lora:here:0.6:0.8> <lora:y:1>"
    assert any("ffffffffff" in note for note in parsed.notes)
    assert not any("Not used here" in note for note in parsed.notes)


def test_fooocus_as_a1111() -> None:
    text = (
        "a cat\nNegative prompt: bad\nSteps: 30, Sampler: DPM++ 2M SDE, Seed: 5, Size: 1152x896, CFG scale: 4.0, "
        'Sharpness: 2.0, ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernautXL, Model hash: aeb7e9e689, '
        "Scheduler: karras, Performance: Speed, Raw prompt: a, Styles: \"['Fooocus V2']\", "
        'Lora hashes: "sdxl_offset: 0123456789, mine: ffffffffff", Lora weights: "sdxl_offset: 0.1, mine: 0.5", '
        "Version: Fooocus v2.4.1"
    )
    parsed = parse_infotext(text, LOCAL)
    request = make_request(parsed.request)
    assert request.prompt == "a cat <lora:here:0.1> <lora:mine:0.5>"
    assert (request.sampler, request.schedule, request.width) == ("DPM++ 2M SDE", "Karras", 1152)
    assert any("Fooocus" in note and "Sharpness 2.0" in note for note in parsed.notes)


def test_adetailer_and_controlnet_are_named() -> None:
    parsed = read('ADetailer model: face.pt, ADetailer prompt: "a, b", ControlNet 0: "Module: canny, Weight: 1"')
    notes = "\n".join(parsed.notes)
    assert "There is no ADetailer here; not used: ADetailer model face.pt; ADetailer prompt a, b." in notes
    assert "There is no ControlNet here" in notes
    assert parsed.pairs["ControlNet 0"] == "Module: canny, Weight: 1"


@pytest.mark.parametrize("negative", ["", " Negative prompt: bad, worse"])
def test_sd_next_in_one_line(negative: str) -> None:
    parsed = parse_infotext(
        f"a cat, (hat:1.2){negative} {LINE}, App: SD.Next, Parser: Full parser, Operations: txt2img"
    )
    assert parsed.prompt == "a cat, (hat:1.2)"
    assert parsed.negative_prompt == negative.removeprefix(" Negative prompt: ")
    assert parsed.request["seed"] == 1
    assert parsed.notes == []


def test_windows_line_ends() -> None:
    parsed = parse_infotext(f"a cat\r\nin a hat\r\nNegative prompt: bad\r\n{LINE}\r\n")
    assert (parsed.prompt, parsed.negative_prompt) == ("a cat\nin a hat", "bad")
    assert parsed.request["rng"] == "CPU"


def test_an_unterminated_quote_costs_one_value() -> None:
    parsed = read('Hires prompt: "a cat, Clip skip: 2, ENSD: 5')
    assert (parsed.request["clip_skip"], parsed.request["sampler_options"]) == (2, {"ensd": 5})


@pytest.mark.parametrize("digits", ["0123456789ab", "0123456789", "0123456789AB" + "c" * 52])
def test_a_lora_is_found_by_every_length_of_its_hash(digits: str) -> None:
    parsed = read(f'Lora hashes: "old: {digits}"', "<lora:old:1>")
    assert parsed.request["prompt"] == "<lora:here:1>"


@pytest.mark.parametrize("digits", ["0123456789ac", "012345678", "not a hash", ""])
def test_another_hash_finds_no_lora(digits: str) -> None:
    assert read(f'Lora hashes: "old: {digits}"', "<lora:old:1>").request["prompt"] == "<lora:old:1>"


def test_a_lora_without_tag_and_weight_is_only_mentioned() -> None:
    parsed = read('Lora hashes: "old: 0123456789ab"')
    assert parsed.request["prompt"] == "a cat"
    assert any("'old'" in note and "how strong" in note for note in parsed.notes)


def test_a_lora_that_has_a_tag_is_not_added_again() -> None:
    resources = dumped([{"type": "lora", "weight": 0.8, "hash": "0123456789", "modelName": "old"}])
    assert read(f"Civitai resources: {resources}", "<lora:old:0.8>").request["prompt"] == "<lora:here:0.8>"
    assert read(f"Civitai resources: {resources}", "<lora:here:0.8>").request["prompt"] == "<lora:here:0.8>"


@pytest.mark.parametrize(
    "value",
    ["{}", "[]", "[1, null, []]", '[{"type": 5, "hash": {}, "weight": []}]', '{"model": 5, "lora:": 1}', "[[[", '"x"'],
)
@pytest.mark.parametrize("key", ["Hashes", "Civitai resources", "Civitai metadata", "Lora hashes", "Lora weights"])
def test_other_forms_are_passed_over(key: str, value: str) -> None:
    assert read(f"{key}: {value}").request["prompt"] == "a cat"


@pytest.mark.parametrize("weight", ["NaN", "1e999", '"x"', "[]", "null", "true"])
def test_a_weight_that_is_no_number_is_one(weight: str) -> None:
    parsed = read(f'Civitai resources: [{{"type": "lora", "hash": "0123456789", "weight": {weight}}}]')
    assert parsed.request["prompt"] == "a cat <lora:here:1>"


def test_the_number_of_loras_is_bounded() -> None:
    text = ", ".join(f"n{i}: 0.5" for i in range(5000))
    assert len(named_loras({"Lora weights": text})) == MAX_LORAS


def test_names_with_colons_keep_them() -> None:
    assert named_hashes("a:b: 0123, c: 4567") == {"a:b": "0123", "c": "4567"}
