"""The second pass in generation text: A1111's keys in its order, its rules of reading, and texts of its and Forge's."""

from __future__ import annotations

from typing import Any

import pytest

from studio.infotext import parse_infotext, write_infotext
from studio.schema.parts import HiresPass
from studio.schema.request import GenerationRequest, make_request
from tests.test_resolve import run

LINE = "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 512x768, RNG: CPU"
ON = f"{LINE}, Denoising strength: 0.5, Hires upscale: 2"


def written(hires: dict[str, Any], **changes: Any) -> str:
    request = make_request({"prompt": "a fox", "seed": 5, "hires": hires, "cfg_scale": 7.0, **changes})
    return write_infotext(run(request), 0, "1").split("\n")[-1]


def read(pairs: str, line: str = ON) -> dict[str, Any]:
    parsed = parse_infotext(f"a fox\n{line}, {pairs}" if pairs else f"a fox\n{line}")
    assert parsed.notes == []
    return {name: value for name, value in parsed.request["hires"].items() if value != getattr(HiresPass(), name)}


def test_only_what_was_asked_for_is_written() -> None:
    text = written({})
    assert (
        "Size: 512x512, Model: base, Denoising strength: 0.7, RNG: CPU, Hires upscale: 2.0, Hires upscaler: Latent, "
        in text
    )
    assert text.count("Hires") == 2


def test_everything_in_a1111s_order() -> None:
    part = {"width": 1000, "height": 0, "steps": 20, "checkpoint": "two", "sampler": "Euler", "schedule": "Beta", "cfg_scale": 5,
            "prompt": "an owl, big", "negative_prompt": "noise", "refiner": "both passes", "upscaler": "Lanczos"}  # fmt: skip
    refiner = {"checkpoint": "other", "switch_at": 0.5}
    assert (
        'Hires checkpoint: two, Hires sampler: Euler, Hires prompt: "an owl, big", Hires negative prompt: noise, Hires CFG Scale: 5.0, '
        "Hires schedule type: Beta, Hires resize: 1000x0, Hires steps: 20, Hires upscaler: Lanczos, Hires refiner: both passes, "
        "Refiner: other, Refiner switch at: 0.5"
    ) in written(part, refiner=refiner)


def test_a_checkpoint_is_written_as_its_short_title() -> None:
    """A file without its sub-folder and with its hash, once that is known; a folder by its name."""

    def title(**changes: Any) -> str:
        resolved = run(make_request({"seed": 5, "hires": {"checkpoint": "two"}}))
        assert resolved.hires is not None
        model = resolved.hires.model.model_copy(update={"name": "sub/two", **changes})
        plan = resolved.hires.model_copy(update={"model": model})
        text = write_infotext(resolved.model_copy(update={"hires": plan}), 0, "1")
        return parse_infotext(text).pairs["Hires checkpoint"]

    assert title() == "two"
    assert title(short_hash="0123456789") == "two [0123456789]"
    assert title(layout="folder") == "sub/two"
    assert "Hires checkpoint" not in written({"checkpoint": "base"})
    assert "Hires checkpoint" not in written({"checkpoint": "two", "denoising_strength": 0})


def test_token_merging_is_told_of_both_passes() -> None:
    """As in A1111: a second pass that merges has its key, also where it only follows the first."""
    told = "Denoising strength: 0.7, ENSD: 7, Token merging ratio: 0.5, Token merging ratio hr: 0.5, RNG: CPU"
    assert told in written({}, token_merging_ratio=0.5, sampler="Euler a", sampler_options={"ensd": 7})
    assert "0.7, Token merging ratio hr: 0.25, RNG" in written({"token_merging_ratio": 0.25})
    assert "Token merging" not in written({})
    assert read("Token merging ratio hr: 0.25") == {"denoising_strength": 0.5, "token_merging_ratio": 0.25}


def test_options_of_either_sampler_are_written() -> None:
    options = {"eta": 0.5, "s_churn": 3.0, "ensd": 7}
    text = written({"sampler": "Euler a"}, sampler="Euler", sampler_options=options)
    assert "ENSD: 7" in text and "Eta: 0.5" in text and "Sigma churn: 3.0" in text
    assert "Eta" not in written({}, sampler="Euler", sampler_options=options)


@pytest.mark.parametrize(
    "pairs, expected",
    [
        ("", {"denoising_strength": 0.5}),
        ("Hires steps: 15, Hires upscaler: Latent (bicubic)", {"denoising_strength": 0.5, "steps": 15, "upscaler": "Latent (bicubic)"}),
        ("Hires resize: 1024x0", {"denoising_strength": 0.5, "width": 1024}),
        ("Hires CFG Scale: 3.5", {"denoising_strength": 0.5, "cfg_scale": 3.5}),
        ('Hires prompt: "an owl, big", Hires negative prompt: 512x512',
         {"denoising_strength": 0.5, "prompt": "an owl, big", "negative_prompt": "512x512"}),
        ("Hires sampler: Use same sampler, Hires schedule type: Use same scheduler, Hires checkpoint: Use same checkpoint",
         {"denoising_strength": 0.5}),
        ("Hires checkpoint: elm [0123456789]", {"denoising_strength": 0.5, "checkpoint": "elm [0123456789]"}),
        ("Hires checkpoint: elm.safetensors", {"denoising_strength": 0.5, "checkpoint": "elm"}),
        ("Hires sampler: Euler, Hires schedule type: Beta", {"denoising_strength": 0.5, "sampler": "Euler", "schedule": "Beta"}),
        ("Hires sampler: DPM++ SDE Karras", {"denoising_strength": 0.5, "sampler": "DPM++ SDE", "schedule": "Karras"}),
        ("Hires schedule type: Exponential", {"denoising_strength": 0.5, "schedule": "Exponential"}),
        ("Hires refiner: first pass, Refiner: x, Refiner switch at: 0.5", {"denoising_strength": 0.5, "refiner": "first pass"}),
    ],
)  # fmt: skip
def test_it_is_read(pairs: str, expected: dict[str, Any]) -> None:
    assert read(pairs) == expected


def test_the_upscaler_is_the_name_of_a_row_or_what_the_text_says() -> None:
    """Which models there are only the library knows. A model is written under A1111's name of it, without its folder."""
    assert read("Hires upscaler: lanczos")["upscaler"] == "Lanczos"
    assert read("Hires upscaler: R-ESRGAN 4x+")["upscaler"] == "R-ESRGAN 4x+"
    assert "Hires upscaler: R-ESRGAN 4x+, Version" in written({"upscaler": "sub/RealESRGAN_x4plus"})
    assert "Hires upscaler: 4x-UltraSharp, Version" in written({"upscaler": "4x-UltraSharp"})


def test_without_a_schedule_the_one_that_ran_first_ran_again() -> None:
    """A1111 names the second one only where it is another. "Karras" is read as Automatic, which for this sampler is another."""
    assert read("Hires sampler: DPM++ 2M SDE")["schedule"] == "Karras"
    assert "schedule" not in read("Hires sampler: DPM++ SDE"), "Automatic there is Karras too"
    uniform = ON.replace("DPM++ 2M, Schedule type: Karras", "Euler, Schedule type: Automatic")
    assert read("Hires sampler: DPM++ 2M", uniform)["schedule"] == "Uniform"


@pytest.mark.parametrize(
    "pairs", ["", "Denoising strength: 0.5", "Hires upscale: 2", "Denoising strength: 0.5, Hires steps: 3"]
)
def test_it_is_on_only_with_a_strength_and_a_size(pairs: str) -> None:
    assert "hires" not in parse_infotext(f"a fox\n{LINE}, {pairs}").request


def test_what_is_not_here_is_told_and_replaced() -> None:
    text = f"a fox\n{ON}, Hires upscaler: Latent, Hires sampler: Oiler, Hires schedule type: Karas"
    parsed = parse_infotext(text)
    assert parsed.request["hires"] == HiresPass(denoising_strength=0.5).model_dump()
    notes = "\n".join(parsed.notes)
    for words in (
        "'Oiler'",
        "'Karas'",
    ):
        assert words in notes
    assert len(parsed.notes) == 2


def test_numbers_out_of_bounds_become_the_nearest() -> None:
    parsed = parse_infotext(f"a fox\n{LINE}, Denoising strength: 1.5, Hires upscale: 8, Hires steps: 900")
    part = parsed.request["hires"]
    assert (part["denoising_strength"], part["scale"], part["steps"]) == (1, 4, 150)
    assert len(parsed.notes) == 3
    make_request(parsed.request)


def test_before_1_1_the_size_was_the_final_one() -> None:
    line = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 9, Size: 1024x768, First pass size: 0x0, Denoising strength: 0.6, RNG: CPU"
    parsed = parse_infotext(f"cat\n{line}")
    assert (parsed.request["width"], parsed.request["height"]) == (640, 448)
    assert parsed.request["hires"] == HiresPass(width=1024, height=768, denoising_strength=0.6).model_dump()
    assert parsed.notes == []


def test_its_prompts_are_those_that_were_drawn_and_its_networks_are_found_here() -> None:
    pairs = 'Hires prompt: "{a|b} <lora:theirs:0.5> oldword", Lora hashes: "theirs: 0123456789ab", TI hashes: "oldword: ba9876543210"'
    parsed = parse_infotext(f"a fox\n{ON}, {pairs}", {"0123456789ab": "mine"}, {"newword": "ba9876543210"})
    assert parsed.request["hires"]["prompt"] == r"\{a|b} <lora:mine:0.5> newword"
    assert parsed.request["prompt"] == "a fox", "a LoRA of the second pass needs no tag in the first"


def test_a_value_in_quotes_of_its_own_comes_back() -> None:
    text = write_infotext(run(GenerationRequest(prompt="x", seed=1, hires=HiresPass(prompt='"fox"'))), 0, "1")
    assert parse_infotext(text).request["hires"]["prompt"] == '"fox"'


def test_extra_noise_is_told_where_it_is_drawn() -> None:
    assert "Hires upscaler: Latent, Extra noise: 0.25, Version" in written({"extra_noise": 0.25})
    assert "Extra noise" not in written({})
    assert "Extra noise" not in written({"extra_noise": 0.25, "denoising_strength": 0})
    assert read("Extra noise: 0.25") == {"denoising_strength": 0.5, "extra_noise": 0.25}
