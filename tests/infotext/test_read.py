"""Reading: other programs' dialects, notes, bounds, and that no text breaks it or takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.infotext import parse_infotext
from studio.infotext.read import MAX_INFOTEXT, find_pairs
from studio.schema.parts import MAX_PROMPT
from studio.schema.request import make_request

LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
SYNTAX = st.lists(
    st.sampled_from(
        [
            *':,"\\{}[]()x \n\r-/09',
            "Steps: 20",
            ", Seed: ",
            "Size: ",
            "512x",
            "Negative prompt:",
            "Sampler: Euler",
            "<lora:a:1>",
        ]
    ),
    max_size=60,
).map("".join)


@given(st.text(max_size=300) | SYNTAX | SYNTAX.map(lambda text: f"{text}\n{LINE}, {text}"))
@settings(deadline=2000)
def test_any_text_is_read_and_its_request_is_valid(text: str) -> None:
    parsed = parse_infotext(text, {"0123456789ab": "here"})
    make_request(parsed.request)
    if not parsed.pairs:
        assert set(parsed.request) == {"prompt", "negative_prompt"}


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a:",
        "ab:",
        'ab:"',
        "ab:{",
        "ab:[",
        'ab:["',
        'ab:{"a":1},',
        "ab: ",
        " ",
        "-",
        "- ",
        "x Steps: 2",
        "(",
        "<a:",
        "\n",
        "a\t",
        'ab:"\\',
        'ab:["ab:",',
    ],
)
def test_long_texts_are_read_in_linear_time(piece: str) -> None:
    text = (piece * MAX_INFOTEXT)[: MAX_INFOTEXT - 100]
    start = time.process_time()
    parse_infotext(text)
    parse_infotext(f"{text}\n{LINE}"[:MAX_INFOTEXT])
    parse_infotext(f"{LINE}, {text}"[:MAX_INFOTEXT])
    assert time.process_time() - start < 20  # as below


@pytest.mark.parametrize("piece", [",", '"', ":", ',":', 'ab: "', '",ab:', "Steps: 1,", '\\"', 'ab: {"', "\u2028"])
def test_a_megabyte_is_read_in_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    for whole in (text, f"a\n{LINE}, {text}"):
        start = time.process_time()
        parse_infotext(whole)
        assert (
            time.process_time() - start < 10
        )  # of a busy machine; alone it is below 1, and quadratic would be minutes


def test_a_prompt_that_no_request_can_hold_is_left_out() -> None:
    parsed = parse_infotext(f"{'a' * (MAX_PROMPT + 1)}\nNegative prompt: b\n{LINE}")
    assert make_request(parsed.request).negative_prompt == "b"
    assert parsed.request.get("prompt") is None
    assert any("The prompt has 50,001 characters; 50,000 are possible." in note for note in parsed.notes)


@pytest.mark.parametrize(
    "pairs",
    [
        f"First pass size: 0x0, Size-1: {'9' * 4000}, Size-2: 1",
        "First pass size: 0x0, Size: 0x0",
        f"Version: v1.{'9' * 5000}.0",
        f"Steps: {'9' * 5000}",
        "Size: ²x³",
        f"Lora hashes: {{, Hashes: {'[' * 5000}",
    ],
)
def test_odd_numbers_and_forms_break_nothing(pairs: str) -> None:
    make_request(parse_infotext(f"a\nSampler: Euler, Seed: 1, CFG scale: 7, {pairs}").request)


def test_what_no_request_can_hold_is_taken_out_of_the_text() -> None:
    assert make_request(parse_infotext(f"a\0b\ud800\n{LINE}").request).prompt == "ab?"


def test_what_is_not_named_has_its_default() -> None:
    request = parse_infotext(f"a cat\n{LINE}").request
    assert request == {
        "prompt": "a cat",
        "negative_prompt": "",
        "steps": 20,
        "sampler": "Euler a",
        "schedule": "Automatic",
        "cfg_scale": 7.0,
        "seed": 1,
        "width": 512,
        "height": 512,
        "clip_skip": 1,
        "rng": "GPU",
        "emphasis": "Original",
        "vae": "Automatic",
        "sampler_options": {},
    }


def test_a_foreign_text_without_rng_gets_a_note_and_ours_does_not() -> None:
    assert any("NV" in note for note in parse_infotext(f"a\n{LINE}, Version: v1.10.1").notes)
    assert parse_infotext(f"a\n{LINE}, Version: Latent Studio 0.1.0").notes == []
    assert parse_infotext(f"a\n{LINE}, RNG: NV").notes == []


@pytest.mark.parametrize(
    "said, part, note",
    [
        ("Variation seed: 77, Variation seed strength: 0.25", {"variation": {"seed": 77, "strength": 0.25}}, ""),
        ("Variation seed: 77, Variation seed strength: 0", {}, ""),
        ("Variation seed: 77", {}, ""),
        ("Variation seed: 99999999999, Variation seed strength: 0.25", {}, "Variation seed 99999999999"),
        ("Variation seed: 77, Variation seed strength: 9", {"variation": {"seed": 77, "strength": 1}}, "strength 9"),
        ("Seed resize from: 512x640", {"seed_resize": {"width": 512, "height": 640}}, ""),
        ("Seed resize from: 0x640", {}, ""),
        ("Seed resize from: 16x640", {}, "seed_resize.width = 16"),
    ],
)
def test_what_is_done_to_the_start_noise(said: str, part: dict[str, dict[str, float]], note: str) -> None:
    parsed = parse_infotext(f"a\n{LINE}, RNG: CPU, {said}")
    assert {name: parsed.request[name] for name in ("variation", "seed_resize") if name in parsed.request} == part
    assert (note in parsed.notes[0]) if note else (parsed.notes == [])


@pytest.mark.parametrize(
    "said, refiner, note",
    [
        ("Refiner: x [0123456789]", {"checkpoint": "x [0123456789]", "switch_at": 0.8, "by_steps": False}, ""),
        ("Refiner: x, Refiner switch at: 0.5", {"checkpoint": "x", "switch_at": 0.5, "by_steps": False}, ""),
        ("Refiner: x, Version: v1.7.0-300", {"checkpoint": "x", "switch_at": 0.8, "by_steps": True}, ""),
        ("Refiner: x, Version: v1.8.0", {"checkpoint": "x", "switch_at": 0.8, "by_steps": False}, ""),
        ("Refiner: x, Refiner switch at: 1", None, ""),
        ("Refiner: x, Refiner switch at: 7", None, "Refiner switch at 7 is not between 0 and 1"),
        ("Refiner: None, Refiner switch at: 0.5", None, ""),
        ("Refiner switch at: 0.5, Refiner switch by sampling steps: True", None, ""),
        (f"Refiner: {'x' * 301}, Refiner switch at: 0.5", None, "too long for a name"),
    ],
)
def test_who_finished_the_picture(said: str, refiner: dict[str, object] | None, note: str) -> None:
    """Before 1.8.0 the switch was counted in steps."""
    parsed = parse_infotext(f"a\n{LINE}, RNG: CPU, {said}")
    assert parsed.request.get("refiner") == refiner
    assert (note in parsed.notes[0]) if note else (parsed.notes == [])


@pytest.mark.parametrize(
    "prompt, version, old",
    [
        ("a [cat:dog:3]", "v1.5.2", True),
        ("a [cat:dog:3]", "v1.5.2-3-g0123abc", True),
        ("a [cat:dog:3]", "v1.6.0", None),
        ("a cat", "v1.5.2", None),
        ("a [cat:dog:3]", "Latent Studio 0.1.0", None),
    ],
)
def test_old_texts_are_edited_the_old_way(prompt: str, version: str, old: bool | None) -> None:
    assert parse_infotext(f"{prompt}\n{LINE}, Version: {version}").request.get("old_prompt_editing") is old


@pytest.mark.parametrize(
    "version, rounded",
    [
        ("v1.5.2", True),
        ("v1.7.0-224", True),
        ("v1.7.0-225", None),
        ("v1.7.0", True),
        ("v1.8.0", None),
        ("Latent Studio 0", None),
    ],
)
def test_old_texts_have_their_noise_levels_in_half_precision(version: str, rounded: bool | None) -> None:
    parsed = parse_infotext(f"a\n{LINE}, RNG: CPU, Version: {version}")
    assert parsed.request.get("downcast_alphas") is rounded
    assert parsed.notes == []


@pytest.mark.parametrize(
    "sampler, version, old",
    [("DDIM", "v1.5.2", True), ("PLMS", "v1.5.2", True), ("Euler", "v1.5.2", None), ("DDIM", "v1.6.0", None)],
)
def test_old_texts_are_padded_the_old_way(sampler: str, version: str, old: bool | None) -> None:
    parsed = parse_infotext(f"a\n{LINE.replace('Euler a', sampler)}, RNG: CPU, Version: {version}")
    assert parsed.request.get("pad_conds_v0") is old
    assert not any("75 tokens" in note for note in parsed.notes)


def test_sd_next_writes_one_line() -> None:
    parsed = parse_infotext(f"a cat, (hat:1.2) Negative prompt: bad, worse {LINE}")
    assert (parsed.prompt, parsed.negative_prompt) == ("a cat, (hat:1.2)", "bad, worse")
    assert parsed.request["seed"] == 1


def test_json_values_are_kept_whole() -> None:
    resources = '[{"type":"lora","weight":0.8},{"a":[1,2]}]'
    parsed = parse_infotext(f"a\n{LINE}, Civitai resources: {resources}, Civitai metadata: {{}}, RNG: CPU")
    assert parsed.pairs["Civitai resources"] == resources
    assert parsed.pairs["RNG"] == "CPU"


def test_a_wider_text_is_adjusted_with_notes() -> None:
    text = (
        "a\nSteps: 900, Sampler: Undefined, CFG scale: nan, Seed: 99999999999, Size: 4096x32, Clip skip: two, RNG: cpu"
    )
    parsed = parse_infotext(f"{text}, Hires upscale: 2, Eta: 7")
    assert parsed.request["steps"] == 150
    assert (parsed.request["width"], parsed.request["height"]) == (2048, 64)
    assert parsed.request["rng"] == "CPU"
    assert parsed.request["clip_skip"] == 1
    assert parsed.request["sampler_options"] == {"eta": 1}
    assert not {"sampler", "seed", "cfg_scale"} & set(parsed.request)
    notes = "\n".join(parsed.notes)
    for word in (
        "Steps 900",
        "Undefined",
        "CFG scale 'nan'",
        "Seed 99999999999",
        "Clip skip 'two'",
        "Hires upscale 2",
        "Eta 7",
    ):
        assert word in notes


def test_a_model_is_named_with_its_hash() -> None:
    assert parse_infotext(f"a\n{LINE}, Model hash: 6ce0161689, Model: v1-5").request["model"] == "v1-5 [6ce0161689]"
    assert parse_infotext(f"a\n{LINE}, Model hash: 45dee52b").request["model"] == "45dee52b"
    assert parse_infotext(f"a\n{LINE}, Model: sprout-v1, Model id: 0123456789ab").request["model"] == "sprout-v1"
    parsed = parse_infotext(f"a\n{LINE}, VAE hash: 63aeecb90f, VAE: x.vae.safetensors")
    assert parsed.request["vae"] == "x.vae [63aeecb90f]"
    assert parse_infotext(f"a\n{LINE}, VAE: Default (model)").request["vae"] == "Automatic"


def test_lora_tags_follow_their_hash() -> None:
    text = f'<lora:old:0.8> a\n{LINE}, Lora hashes: "old: 0123456789ab"'
    parsed = parse_infotext(text, {"0123456789ab": "new name"})
    assert parsed.prompt == "<lora:old:0.8> a"
    assert parsed.request["prompt"] == "<lora:new name:0.8> a"
    assert any("LoRA" in note for note in parsed.notes)
    assert parse_infotext(text).request["prompt"] == "<lora:old:0.8> a"


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z \-/]{0,10}[a-z]", fullmatch=True), st.text(min_size=1), min_size=1)
)
@settings(deadline=2000)
def test_quoted_pairs_come_back(pairs: dict[str, str]) -> None:
    from studio.infotext.quote import quote, unquote

    values = {key: value.strip() + "," for key, value in pairs.items()}
    line = ", ".join(f"{key}: {quote(value)}" for key, value in values.items())
    assert {key: unquote(value) for key, value in find_pairs(line)} == values


def test_templates_on_lines_of_their_own_are_parameters() -> None:
    """sd-dynamic-prompts writes them after AUTOMATIC1111's text."""
    parsed = parse_infotext(
        "a red fox\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1\n"
        "Template: a {red|blue} fox,\nin snow\nNegative Template: {blurry|ugly}"
    )
    assert (parsed.prompt, parsed.negative_prompt) == ("a red fox", "blurry")
    assert parsed.pairs["Template"] == "a {red|blue} fox,\nin snow"
    assert parsed.pairs["Negative Template"] == "{blurry|ugly}"
    assert (parsed.request["steps"], parsed.request["seed"]) == (20, 1)


def test_a_line_that_only_looks_like_a_template_is_prompt() -> None:
    assert parse_infotext("Steps: up\nTemplate: x").prompt == "Steps: up\nTemplate: x"


def test_a_pictures_prompt_draws_nothing_and_a_bare_one_may() -> None:
    text = "a {red|blue} __fox__\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1"
    assert parse_infotext(text).prompt == "a {red|blue} __fox__"
    assert parse_infotext(text).request["prompt"] == "a \\{red|blue} \\__fox\\__"
    assert parse_infotext("a {red|blue} fox").request["prompt"] == "a {red|blue} fox"
