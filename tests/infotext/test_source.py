"""A picture to begin with and its mask in generation text: A1111's keys and rules, and ours beside them."""

from __future__ import annotations

from typing import Any

import pytest

from studio.infotext import parse_infotext, write_infotext
from studio.resolve import resolve
from studio.schema.request import make_request
from studio.schema.resolved import ResolvedRequest
from tests.infotext.test_round_trip import UPSCALER, Library

PICTURE, MASK = "0123456789abcdef" * 2, "89abcdef" * 4
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, RNG: CPU"


def resolved(mask: dict[str, Any] | None = None, model: str = "painter", **source: Any) -> ResolvedRequest:
    part = None if mask is None else {"image": MASK, **mask}
    request = make_request({"prompt": "a cat", "model": model, "source": {"image": PICTURE, **source}, "mask": part})
    return resolve(request, Library(), lambda: 5)


def written(*args: Any, **source: Any) -> list[str]:
    return write_infotext(resolved(*args, **source), 0, "1.0").splitlines()[-1].split(", ")


def test_a_picture_writes_its_strength_and_its_hash_where_a1111_does() -> None:
    pairs = written(denoising_strength=0.4)
    keys = [pair.partition(":")[0] for pair in pairs]
    assert keys == [
        *("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model"),
        *("Denoising strength", "Init image hash", "RNG", "Init image", "Version"),
    ]
    assert "Denoising strength: 0.4" in pairs
    assert f"Init image hash: {PICTURE[::-1]}" in pairs, "the MD5 that the library tells"
    assert f"Init image: {PICTURE}" in pairs


def test_a_mask_writes_what_is_not_usual_in_a1111_s_order() -> None:
    mask = {
        "inverted": True, "blur": 8, "area": "Only masked", "padding": 16, "content": "latent noise", "rounding": False,
    }  # fmt: skip
    pairs = written(mask, noise_multiplier=1.1, extra_noise=0.05, exact_steps=True)
    assert pairs[pairs.index("RNG: CPU") + 1 : -1] == [
        *("Mask mode: Inpaint not masked", "Mask blur: 8", "Inpaint area: Only masked", "Masked area padding: 16"),
        *("Masked content: latent noise", "Mask rounding: False", "Noise multiplier: 1.1", "Extra noise: 0.05"),
        *("Exact steps: True", f"Init image: {PICTURE}", f"Mask image: {MASK}"),
    ]
    assert "Resize mode: Resize and fill" in written(resize_mode="Resize and fill")
    usual = written({})
    assert "Mask blur: 4" in usual
    assert not [pair for pair in usual if pair.startswith(("Mask mode", "Inpaint area", "Masked", "Mask rounding"))]


@pytest.mark.parametrize(
    "model, mask, wanted",
    [
        ("painter", {"conditioning_weight": 0.5}, None),
        ("filler", {"conditioning_weight": 0.5}, "0.5"),
        ("filler", {}, "1.0"),
        ("filler", None, "1.0"),
    ],
)
def test_inpainting_checkpoints_tell_how_much_was_hidden(
    model: str, mask: dict[str, Any] | None, wanted: str | None
) -> None:
    found = [pair.partition(": ")[2] for pair in written(mask, model) if pair.startswith("Conditional mask weight")]
    assert found == ([] if wanted is None else [wanted])


def test_checkpoints_for_instructions_tell_how_strictly_the_picture_was_kept() -> None:
    pairs = written(None, "editor", image_cfg_scale=1.2)
    assert pairs[pairs.index("CFG scale: 7.0") + 1] == "Image CFG scale: 1.2"
    assert not [pair for pair in written(image_cfg_scale=1.2) if pair.startswith("Image CFG scale")]


@pytest.mark.parametrize(
    "line",
    [
        "Denoising strength: 0.6",
        "Denoising strength: 0.75, Mask blur: 4, Mask mode: Inpaint not masked, Inpaint area: Only masked, Masked area padding: 64",
        "Denoising strength: 0.5, Init image hash: 0f343b0931126a20f133d67c2b018a3b",
    ],
)
def test_a_text_of_a1111_says_that_a_picture_is_missing(line: str) -> None:
    parsed = parse_infotext(f"a\n{LINE}, {line}")
    (note,) = parsed.notes
    assert "began with another picture" in note
    assert all(pair.partition(": ")[2] in note for pair in line.split(", "))
    request = make_request(parsed.request)
    assert (request.source, request.mask, request.hires) == (None, None, None)


def test_a_strength_with_a_second_pass_is_that_one_s() -> None:
    parsed = parse_infotext(f"a\n{LINE}, Denoising strength: 0.6, Hires upscale: 2, Hires upscaler: Latent")
    request = make_request(parsed.request)
    assert parsed.notes == [] and request.source is None
    assert request.hires is not None and request.hires.denoising_strength == 0.6


@pytest.mark.parametrize(
    "pair, named",
    [
        ("Init image: ../../etc/passwd", "source.image"),
        ("Denoising strength: 3", "Denoising strength"),
        ("Resize mode: Squeeze", "Resize mode"),
        (f"Mask image: {MASK[:-1]}", "mask.image"),
        ("Masked content: air", "Masked content"),
    ],
)
def test_what_cannot_be_is_left_out_with_a_note(pair: str, named: str) -> None:
    kept = {"Init image": PICTURE, "Denoising strength": "0.5", "Mask image": MASK}
    key, _, value = pair.partition(": ")
    text = ", ".join(f"{name}: {shown}" for name, shown in {**kept, key: value}.items())
    parsed = parse_infotext(f"a\n{LINE}, {text}")
    assert any(named in note for note in parsed.notes), parsed.notes
    request = make_request(parsed.request)
    assert (request.source is None) == (key == "Init image")
    assert (request.mask is None) == (named in ("source.image", "mask.image"))


def test_tiles_are_written_under_a1111s_keys_and_read_back() -> None:
    part = {"upscaler": UPSCALER.name, "scale_factor": 1.5, "overlap": 32}
    request = make_request(
        {"source": {"image": PICTURE}, "sd_upscale": part, "width": 128, "height": 128, "model": "painter"}
    )
    text = write_infotext(resolve(request, Library(), lambda: 5), 0, "1.0")
    assert "Size: 128x128" in text, "that of the tiles"
    assert "SD upscale overlap: 32, SD upscale upscaler: 4x-UltraSharp, SD upscale scale factor: 1.5, " in text
    parsed = parse_infotext(text)
    assert parsed.request["sd_upscale"] == {**part, "upscaler": "4x-UltraSharp"}
    assert parsed.notes == []


def test_tiles_of_a_picture_that_is_not_named_are_told() -> None:
    """A1111 records neither the picture nor the factor; its own default then is ours."""
    theirs = "SD upscale overlap: 32, SD upscale upscaler: lanczos"
    parsed = parse_infotext(f"a\n{LINE}, Denoising strength: 0.3, {theirs}")
    assert "sd_upscale" not in parsed.request
    assert any("SD upscale upscaler lanczos" in note and "SD upscale overlap 32" in note for note in parsed.notes)
    known = parse_infotext(f"a\n{LINE}, Denoising strength: 0.3, {theirs}, Init image: {PICTURE}")
    assert known.request["sd_upscale"] == {"upscaler": "Lanczos", "overlap": 32, "scale_factor": 2.0}
