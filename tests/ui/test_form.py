"""Form and request are the same thing in two shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import InvalidRequest, StudioError, UnknownName
from studio.schema.parts import HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest
from studio.schema.source import Mask, Source
from studio.schema.upscale import SdUpscale
from studio.ui.form import (
    Form,
    complete,
    flat,
    possible,
    sampler_choices,
    schedule_choices,
)
from studio.ui.looks import LOOKS, OPTIONS, field_names, in_words_of_the_form


def values_of(form: Form, request: GenerationRequest) -> dict[Any, Any]:
    """What the browser would send if the form showed `request`."""
    return {component: update["value"] for component, update in form.fill(request.model_dump()).items()}


OPTION_SETS = st.builds(
    SamplerOptions,
    eta=st.none() | st.floats(0, 1),
    s_churn=st.floats(0, 100),
    s_tmin=st.floats(0, 1000),
    rho=st.floats(0, 100),
    ensd=st.integers(-10, 10),
    old_karras=st.booleans(),
    s_min_uncond=st.floats(0, 15),
    skip_early_cond=st.floats(0, 1),
    uni_pc_variant=st.sampled_from(["bh1", "bh2", "vary_coeff"]),
)
NAMES = st.sampled_from(["", "0" * 32, "0123456789abcdef" * 2])
PICTURES = st.builds(
    Source,
    image=NAMES,
    denoising_strength=st.floats(0, 1),
    resize_mode=st.sampled_from(["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]),
    exact_steps=st.booleans(),
    noise_multiplier=st.floats(0, 1.5),
    image_cfg_scale=st.floats(0, 30),
    extra_noise=st.floats(0, 1),
)
MASKS = st.builds(
    Mask,
    image=NAMES,
    blur=st.integers(0, 64),
    inverted=st.booleans(),
    content=st.sampled_from(["fill", "original", "latent noise", "latent nothing"]),
    area=st.sampled_from(["Whole picture", "Only masked"]),
    padding=st.integers(0, 256),
    rounding=st.booleans(),
    conditioning_weight=st.floats(0, 1),
)
PLAIN = st.builds(
    GenerationRequest,
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80),
    negative_prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80),
    styles=st.lists(st.sampled_from(["ink", "oil, wet"]), max_size=3).map(tuple),
    sampler=st.sampled_from(sampler_choices()),
    schedule=st.sampled_from(schedule_choices()),
    steps=st.integers(1, 150),
    cfg_scale=st.floats(0, 100),
    width=st.integers(64, 2048),
    height=st.integers(64, 2048),
    batch_count=st.integers(1, 100),
    batch_size=st.integers(1, 16),
    seed=st.integers(-1, 2**32 - 1),
    variation=st.none() | st.builds(Variation, seed=st.integers(-1, 2**32 - 1), strength=st.floats(0, 1)),
    seed_resize=st.none()
    | st.builds(SeedResize, width=st.just(0) | st.integers(64, 2048), height=st.integers(64, 2048)),
    refiner=st.none()
    | st.builds(
        Refiner, checkpoint=st.sampled_from(["", "None", "sprout"]), switch_at=st.floats(0, 1), by_steps=st.booleans()
    ),
    hires=st.none()
    | st.builds(
        HiresPass,
        scale=st.floats(1, 4),
        width=st.just(0) | st.integers(64, 4096),
        steps=st.integers(0, 150),
        checkpoint=st.sampled_from(["", "sprout"]),
        vae=st.sampled_from(["", "Automatic", "sharp"]),
        text_encoders=st.sampled_from([(), ("Built-in",), ("clip_l", "clip_g")]),
        denoising_strength=st.floats(0, 1),
        token_merging_ratio=st.floats(0, 0.9),
        sampler=st.sampled_from(["", *sampler_choices()]),
        prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    ),
    model=st.none() | st.just("sprout"),
    vae=st.sampled_from(["Automatic", "sharp"]),
    hypernetwork=st.sampled_from(["", "anime"]),
    hypernetwork_strength=st.floats(0, 1),
    clip_skip=st.integers(1, 12),
    deep_cache=st.integers(1, 5),
    token_merging_ratio=st.floats(0, 0.9),
    text_encoders=st.sampled_from([(), ("clip_l",), ("clip_g", "clip_l")]),
    fp8_weight=st.sampled_from(["Disable", "Enable for SDXL", "Enable"]),
    cache_fp16_weight=st.booleans(),
    vae_encoder=st.sampled_from(["Full", "TAESD"]),
    vae_decoder=st.sampled_from(["Full", "TAESD"]),
    face_restoration=st.sampled_from(["", "GFPGAN", "a file"]),
    code_former_weight=st.floats(0, 1),
    emphasis=st.sampled_from(["Original", "No norm", "Ignore", "None"]),
    old_prompt_editing=st.booleans(),
    pad_conds=st.booleans(),
    tiling=st.booleans(),
    sdxl_crop_top=st.integers(0, 4096),
    sdxl_crop_left=st.integers(0, 4096),
    downcast_alphas=st.booleans(),
    pad_conds_v0=st.booleans(),
    prediction_type=st.sampled_from(["Automatic", "epsilon", "v_prediction"]),
    noise_schedule=st.sampled_from(["Default", "Zero Terminal SNR"]),
    rng=st.sampled_from(["CPU", "GPU", "NV"]),
    sampler_options=OPTION_SETS,
    plot=st.none()
    | st.builds(
        Plot,
        x_type=st.sampled_from(["Nothing", "CFG Scale", "Cond. Image Mask Weight"]),
        x_values=st.sampled_from(["", "1-10 [4]", '"a, b", c']),
        y_type=st.sampled_from(["Nothing", "Sampler"]),
        z_values=st.sampled_from(["", "1, 2"]),
        legend=st.booleans(),
        margin=st.integers(0, 500),
        random_seeds=st.booleans(),
    ),
)


TILES = st.builds(
    SdUpscale,
    upscaler=st.sampled_from(["", "None", "Lanczos", "4x-Sharp"]),
    scale_factor=st.floats(1, 4),
    overlap=st.integers(0, 256),
)


def with_picture(
    request: GenerationRequest, source: Source, mask: Mask | None, tiles: SdUpscale | None
) -> GenerationRequest:
    """`request`, beginning with a picture: it then has no second pass, and a mask, or tiles, only where there is a picture."""
    parts = {
        "hires": None,
        "source": source.model_dump(),
        "mask": (mask and source.image and mask.model_dump()) or None,
        "sd_upscale": tiles.model_dump() if tiles and source.image and not (mask and mask.image) else None,
    }
    return GenerationRequest.model_validate({**request.model_dump(), **parts})


REQUESTS = PLAIN | st.builds(with_picture, PLAIN, PICTURES, st.none() | MASKS, st.none() | TILES)


def test_every_field_of_a_request_is_on_the_form() -> None:
    assert set(LOOKS) == set(field_names())
    assert len({look.elem_id for look in LOOKS.values()}) == len(LOOKS)


@given(REQUESTS)
@settings(max_examples=60, deadline=None)
def test_round_trip(form: Form, request: GenerationRequest) -> None:
    assert form.read(values_of(form, request)) == request


def test_a_plot_of_nothing_is_none_and_one_that_goes_leaves_the_form(form: Form) -> None:
    plot = Plot(x_type="Steps", x_values="5, 6", legend=False, margin=4)
    values = values_of(form, GenerationRequest(plot=plot))
    assert form.read(values).plot == plot
    assert form.read({**values, form.controls["plot.x_type"]: "Nothing"}).plot is None
    shown = form.fill(GenerationRequest().model_dump())
    assert shown[form.controls["plot.x_type"]]["value"] == "Nothing"
    assert shown[form.controls["plot.legend"]]["value"] is True


def test_an_axis_that_is_not_here_is_noted() -> None:
    shown, notes = possible({"steps": 5, "plot": {"x_type": "Sharpness", "x_values": "None", "y_type": "Steps"}}, {})
    assert shown["plot"]["y_type"] == "Steps"
    assert shown["plot"]["x_type"] == "Nothing"
    assert len(notes) == 1 and "plot.x_type = 'Sharpness'" in notes[0]


def test_no_styles_at_all_is_none_of_them(form: Form) -> None:
    values = values_of(form, GenerationRequest(styles=("ink",)))
    assert form.read(values).styles == ("ink",)
    assert form.read({**values, form.controls["styles"]: None}).styles == ()


def test_an_empty_seed_is_a_random_one(form: Form) -> None:
    values = values_of(form, GenerationRequest())
    empty = {form.controls["seed"]: None, form.controls["variation.seed"]: None}
    read = form.read({**values, **empty, form.controls["variation.strength"]: 0.5})
    assert read.seed == -1
    assert read.variation == Variation(seed=-1, strength=0.5)


@pytest.mark.parametrize(
    "name, value",
    [("steps", 0), ("steps", None), ("width", 63), ("width", 100000), ("cfg_scale", float("nan")), ("batch_size", 17),
     ("prompt", "x" * 50_001), ("sampler_options.eta", 2), ("steps", "many"), ("rng", "TPU"), ("prompt", "a\0b"),
     ("variation.strength", 1.1), ("variation.seed", -2), ("seed_resize.width", 63), ("seed_resize.height", 2049),
     ("refiner.switch_at", -0.1), ("refiner.checkpoint", "x" * 301)],
)  # fmt: skip
def test_bad_values_are_named(form: Form, name: str, value: Any) -> None:
    values = {**values_of(form, GenerationRequest()), form.controls[name]: value}
    with pytest.raises(InvalidRequest) as caught:
        form.read(values)
    assert caught.value.field == name
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("shown, eta", [("", None), ("  ", None), (None, None), ("0", 0.0), ("0,25", 0.25), (0.5, 0.5)])
def test_eta_is_what_was_typed_and_empty_is_automatic(form: Form, shown: Any, eta: float | None) -> None:
    values = {**values_of(form, GenerationRequest()), form.controls["sampler_options.eta"]: shown}
    assert form.read(values).sampler_options.eta == eta


def test_eta_is_shown_as_text(form: Form) -> None:
    component = form.controls["sampler_options.eta"]
    assert form.fill({OPTIONS: {"eta": None}})[component]["value"] == ""
    assert form.fill({OPTIONS: {"eta": 0.5}})[component]["value"] == "0.5"


@pytest.mark.parametrize("typed, words", [("abc", "'abc' is not possible: should be a number"),
                                          ("2", "2 is not possible: should be from 0 to 1"),
                                          ("-0,5", "-0.5 is not possible: should be from 0 to 1"),
                                          ("nan", "'nan' is not possible: should be from 0 to 1")])  # fmt: skip
def test_a_bad_eta_is_named_with_what_is_allowed(form: Form, typed: str, words: str) -> None:
    values = {**values_of(form, GenerationRequest()), form.controls["sampler_options.eta"]: typed}
    with pytest.raises(InvalidRequest) as caught:
        form.read(values)
    assert caught.value.field == "sampler_options.eta"
    assert f"sampler_options.eta = {words}" in caught.value.message


@pytest.mark.parametrize("kept", [0.5, "0.5"])
def test_a_kept_eta_comes_back_in_either_spelling(form: Form, kept: Any) -> None:
    """Forms that an earlier version kept hold the number, as do pictures."""
    shown, notes = possible({OPTIONS: {"eta": kept}}, {})
    assert (form.fill(shown)[form.controls["sampler_options.eta"]]["value"], notes) == ("0.5", [])


def test_fill_touches_only_what_is_named(form: Form) -> None:
    updates = form.fill({"steps": 7, "sampler_options": {"rho": 3}, "not a field": 1})
    assert {component.elem_id for component in updates} == {"txt2img_steps", "txt2img_rho"}


def test_a_soft_slider_grows(form: Form) -> None:
    component = form.controls["cfg_scale"]
    assert form.fill({"cfg_scale": 45.0})[component]["maximum"] == 45
    assert form.fill({"cfg_scale": 5.0})[component]["maximum"] == 30


def test_flat() -> None:
    assert flat({"steps": 1, "sampler_options": {"eta": 1}}) == {"steps": 1, "sampler_options.eta": 1}
    assert flat({"sampler_options": None}) == {}
    assert flat({"variation": {"seed": 3}}) == {"variation.seed": 3}


def test_a_part_that_is_off_shows_its_defaults() -> None:
    assert flat({"variation": None}) == {"variation.seed": -1, "variation.strength": 0}
    assert flat({"refiner": None}) == {"refiner.checkpoint": "", "refiner.switch_at": 0.8, "refiner.by_steps": False}
    assert flat({"seed_resize": None}) == {"seed_resize.width": 0, "seed_resize.height": 0}


def test_a_part_with_a_switch_is_off_or_on_and_keeps_its_fields() -> None:
    assert flat({"hires": None}) == {"hires.on": False}
    on = flat({"hires": HiresPass(scale=3).model_dump()})
    assert (on["hires.on"], on["hires.scale"]) == (True, 3)
    shown, notes = possible({"hires": {"on": False, "scale": 3, "steps": 999}}, {})
    assert flat(shown) | {"hires.on": False, "hires.scale": 3, "hires.steps": 0} == flat(shown)
    assert len(notes) == 1
    assert possible({"hires": None}, {}) == ({}, [])
    assert flat(complete({"steps": 9}))["hires.on"] is False


def test_a_switch_decides_whether_the_part_is_read(form: Form) -> None:
    values = values_of(form, GenerationRequest(hires=HiresPass(scale=3)))
    assert form.read(values).hires == HiresPass(scale=3)
    assert form.read({**values, form.controls["hires.on"]: False}).hires is None
    wrong = {**values, form.controls["hires.scale"]: 9}
    assert form.read({**wrong, form.controls["hires.on"]: False}).hires is None, "what is off may be anything"
    with pytest.raises(InvalidRequest, match=r"hires\.scale = 9"):
        form.read(wrong)


PICTURE, MASK = "a" * 32, "b" * 32
BOTH = GenerationRequest(source=Source(image=PICTURE, denoising_strength=0.4), mask=Mask(image=MASK, blur=9))


def test_a_picture_to_begin_with_and_its_mask_are_there_while_they_are_named(form: Form) -> None:
    values = values_of(form, BOTH)
    assert form.read(values) == BOTH
    unmasked = form.read({**values, form.controls["mask.image"]: ""})
    assert (unmasked.source, unmasked.mask) == (BOTH.source, None)
    without = form.read({**values, form.controls["source.image"]: ""})
    assert (without.source, without.mask) == (None, None), "a mask of nothing is not shown, and not sent"
    hidden = {form.controls["source.denoising_strength"]: 7, form.controls["mask.blur"]: None}
    assert form.read({**values, **hidden, form.controls["source.image"]: ""}) == without
    with pytest.raises(InvalidRequest, match=r"source\.denoising_strength = 7"):
        form.read({**values, **hidden})


def test_tiles_are_there_while_there_is_a_picture_and_not_with_a_mask(form: Form) -> None:
    tiled = GenerationRequest(source=Source(image=PICTURE), sd_upscale=SdUpscale(upscaler="Lanczos", overlap=32))
    values = {form.controls[name]: value for name, value in flat(tiled.model_dump()).items()}
    assert form.read(values).sd_upscale == tiled.sd_upscale
    assert form.read({**values, form.controls["source.image"]: ""}).sd_upscale is None
    assert form.read({**values, form.controls["sd_upscale.upscaler"]: ""}).sd_upscale is None
    with pytest.raises(InvalidRequest, match=r"tiles \(SD upscale\) and a mask"):
        form.read({**values, form.controls["mask.image"]: MASK})


def test_a_picture_and_a_second_pass_at_once_are_refused(form: Form) -> None:
    with pytest.raises(InvalidRequest, match="do not go together"):
        form.read({**values_of(form, GenerationRequest(hires=HiresPass())), form.controls["source.image"]: PICTURE})


def test_a_picture_to_begin_with_comes_back_beside_a_second_pass_that_is_off() -> None:
    left = {**BOTH.model_dump(), "hires": {"on": False, "scale": 3}}
    shown, notes = possible(left, {})
    assert notes == []
    shape = flat(shown)
    assert (shape["source.image"], shape["mask.image"], shape["mask.blur"]) == (PICTURE, MASK, 9)
    assert (shape["hires.on"], shape["hires.scale"]) == (False, 3)
    shown, notes = possible({**left, "hires": {"on": True, "scale": 3}}, {})
    assert "source" not in shown and shown["hires"]["scale"] == 3
    assert any("do not go together" in note for note in notes)


def test_a_form_without_a_picture_fills_none() -> None:
    assert flat({"source": None})["source.image"] == ""
    assert flat(complete({"steps": 9}))["mask.image"] == ""
    shown, notes = possible({"source": {"image": ""}, "mask": {"image": ""}}, {})
    assert (shown, notes) == ({}, [])
    shown, notes = possible({"source": {"image": "../../etc/passwd"}}, {})
    assert "source" not in shown and "32 hexadecimal digits" in notes[0]


def lookup(name: str) -> str:
    known = {"sprout": "sprout", "sprout [0123]": "sprout"}
    if name not in known:
        raise UnknownName.of("checkpoint", name, known)
    return known[name]


def test_possible_finds_names_in_any_spelling() -> None:
    assert possible({"model": "sprout [0123]", "steps": 5}, {"model": lookup}) == ({"model": "sprout", "steps": 5}, [])


def test_of_a_part_only_the_name_that_is_not_there_gets_its_default() -> None:
    lookups = {"hires.checkpoint": lookup}
    part = {"checkpoint": "elm", "scale": 3.0}
    shown, notes = possible({"hires": part}, lookups)
    assert shown == {"hires": HiresPass(scale=3).model_dump()}
    assert len(notes) == 1 and "'elm'" in notes[0]
    shown, notes = possible({"hires": {**part, "checkpoint": "sprout [0123]"}}, lookups)
    assert (shown["hires"]["checkpoint"], notes) == ("sprout", [])
    assert possible({"steps": 5}, lookups) == ({"steps": 5}, [])


def test_possible_drops_and_says_so() -> None:
    odd: dict[str, Any] = {"model": "elm", "steps": 9999, "seed": 4, "cfg_scale": "warm", "colour": "red",
                           "sampler_options": {"eta": 7, "rho": 2, "magic": 1},
                           "variation": {"seed": 5, "strength": 3}, "seed_resize": {"width": 128, "height": 20}}  # fmt: skip
    shown, notes = possible(odd, {"model": lookup})
    assert shown["seed"] == 4
    assert shown[OPTIONS]["rho"] == 2
    assert shown[OPTIONS]["eta"] is None
    assert "steps" not in shown
    assert "model" not in shown
    assert not {"variation", "seed_resize"} & shown.keys(), "without a strength, or one side, they are off"
    assert len(notes) == 6
    assert any("'elm'" in note for note in notes)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
                    max_leaves=5)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*GenerationRequest.model_fields, "other"]), JSON, max_size=6))
@settings(max_examples=150, deadline=None)
def test_possible_takes_anything(form: Form, garbage: dict[str, Any]) -> None:
    shown, _ = possible(garbage, {"model": lookup})
    form.fill(shown)
    GenerationRequest.model_validate(shown)


def test_complete_is_one_whole_picture() -> None:
    whole = complete({"steps": 9, "seed": 5, "batch_size": 8, "sampler_options": {"eta": 0.5}})
    assert set(whole) == set(GenerationRequest.model_fields) - {"model", "width", "height"}
    assert (whole["batch_size"], whole["batch_count"], whole["steps"], whole["seed"]) == (1, 1, 9, 5)
    assert whole[OPTIONS] == SamplerOptions(eta=0.5).model_dump()
    assert whole["vae"] == "Automatic"


def test_a_text_without_parameters_completes_nothing() -> None:
    assert complete({"prompt": "a fox"}) == {"prompt": "a fox"}


def test_lookups_may_raise_any_of_our_errors() -> None:
    def broken(name: str) -> str:
        raise StudioError("no disk")

    shown, notes = possible({"vae": "x"}, {"vae": broken})
    assert shown == {}
    assert notes == ["no disk The picture will not come out the same."]


@pytest.mark.parametrize(
    ("field", "message", "told"),
    [
        ("cfg_scale", "cfg_scale = 500 is not possible: no.", "CFG scale = 500 is not possible: no."),
        ("sampler_options.eta", "sampler_options.eta = 2 is not possible: no.", "Eta = 2 is not possible: no."),
        ("model", "There is no checkpoint 'x'.", "There is no checkpoint 'x'."),
        ("request", "request = [1] is not possible: no.", "request = [1] is not possible: no."),
        (None, "The disk is full.", "The disk is full."),
    ],
)
def test_errors_name_a_field_as_the_page_does(field: str | None, message: str, told: str) -> None:
    data = in_words_of_the_form(InvalidRequest(message, field=field))
    assert (data["message"], data["field"]) == (told, field)
