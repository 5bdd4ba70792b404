"""Writing, and that what is written comes back as the request it was made from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from studio.errors import InvalidRequest, UnknownName
from studio.infotext import parse_infotext, write_infotext
from studio.prompt import Style
from studio.resolve import resolve
from studio.samplers.table import SAMPLERS, SCHEDULES, SamplerSpec, find_sampler
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest, SamplerOptions, SeedResize, Variation, make_request
from studio.schema.resolved import ResolvedRequest


def info(kind: Any, name: str, **more: Any) -> ModelInfo:
    path = f"/m/{name}.safetensors"
    return ModelInfo(
        **{"kind": kind, "name": name, "path": path, "layout": "file", "family": "sd1", "size": 1, "mtime": 0.0, **more}
    )


CHECKPOINT = info("checkpoint", "painter", short_hash="0123456789")
FOLDER = info("checkpoint", "sub/sprout", layout="folder", path="/m/sub/sprout", model_id="abcdefabcdef")
VAE = info("vae", "nice.vae", short_hash="aaaaaaaaaa")
LORA = info("lora", "style", short_hash="0123456789ab")


class Shelf:
    """A library of one of each."""

    def checkpoint(self, name: str | None) -> ModelInfo:
        return FOLDER if name == FOLDER.name else CHECKPOINT

    def vae(self, name: str) -> ModelInfo | None:
        return None if name == "Automatic" else VAE

    def lora(self, name: str) -> ModelInfo:
        if name != "style":
            raise UnknownName.of("LoRA", name, ["style"])
        return LORA

    def style(self, name: str) -> Style:
        raise UnknownName.of("style", name, [])

    def wildcard(self, name: str) -> list[str]:
        return ["red", "blue"]


def resolved(request: GenerationRequest) -> ResolvedRequest:
    return resolve(request, Shelf(), lambda: 7)


def written(**fields: Any) -> str:
    return write_infotext(resolved(GenerationRequest(**fields)), 0, "1.2.3")


def parameters(**fields: Any) -> dict[str, str]:
    return parse_infotext(written(**fields)).pairs


def test_the_whole_text() -> None:
    options = SamplerOptions(eta=0.5, ensd=31337, sigma_min=0.1, discard_penultimate=True, sgm_noise_multiplier=True)
    text = written(
        prompt="a (cat:1.2)\n<lora:style:0.8>",
        negative_prompt="bad",
        sampler="Euler a",
        schedule="Karras",
        steps=12,
        seed=5,
        vae="nice",
        clip_skip=2,
        emphasis="No norm",
        sampler_options=options,
    )
    assert text == (
        "a (cat:1.2)\n<lora:style:0.8>\nNegative prompt: bad\n"
        "Steps: 12, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.0, Seed: 5, Size: 512x512, "
        "Model hash: 0123456789, Model: painter, VAE hash: aaaaaaaaaa, VAE: nice.vae.safetensors, Clip skip: 2, ENSD: 31337, "
        'RNG: CPU, Lora hashes: "style: 0123456789ab", Emphasis: No norm, Discard penultimate sigma: True, '
        "Schedule min sigma: 0.1, SGM noise multiplier: True, Eta: 0.5, Version: Latent Studio 1.2.3"
    )


def test_the_seed_is_the_pictures_own() -> None:
    request = resolved(GenerationRequest(seed=10, batch_count=2, batch_size=2))
    assert [parse_infotext(write_infotext(request, i, "1")).request["seed"] for i in range(4)] == [10, 11, 12, 13]


def test_a_variation_keeps_the_seed_and_counts_its_own() -> None:
    request = resolved(
        GenerationRequest(
            seed=10,
            variation=Variation(seed=20, strength=0.25),
            seed_resize=SeedResize(width=512, height=640),
            batch_size=3,
        )
    )
    text = write_infotext(request, 2, "1")
    start_noise = "Variation seed: 22, Variation seed strength: 0.25, Seed resize from: 512x640, RNG: CPU"
    assert f"Seed: 10, Size: 512x512, Model hash: 0123456789, Model: painter, {start_noise}" in text
    read = parse_infotext(text).request
    assert read["variation"] == {"seed": 22, "strength": 0.25}
    assert read["seed_resize"] == {"width": 512, "height": 640}


def test_a_hash_is_never_invented() -> None:
    unhashed = resolved(GenerationRequest(prompt="<lora:style:1>", vae="nice")).model_copy(
        update={
            "model": CHECKPOINT.model_copy(update={"short_hash": None}),
            "vae": VAE.model_copy(update={"short_hash": None}),
            "loras": (),
        }
    )
    text = write_infotext(unhashed, 0, "1")
    assert "hash" not in text
    assert "Model: painter, VAE: nice.vae.safetensors" in text


def test_a_folder_has_an_id_instead_of_a_hash() -> None:
    pairs = parameters(model=FOLDER.name)
    assert (pairs["Model"], pairs["Model id"]) == ("sub/sprout", "abcdefabcdef")
    assert "Model hash" not in pairs


@pytest.mark.parametrize(
    "prompt, emphasis, is_written",
    [
        ("a cat", "No norm", False),
        ("a (cat)", "No norm", True),
        ("a (cat)", "Original", False),
        ("<lora:style:1>", "Ignore", False),
        ("a\\b", "None", True),
        ("a BREAK b", "None", True),
        ("a BREAK b", "Ignore", False),
    ],
)
def test_emphasis_is_written_where_it_matters(prompt: str, emphasis: Any, is_written: bool) -> None:
    assert ("Emphasis" in written(prompt=prompt, emphasis=emphasis)) == is_written


@pytest.mark.parametrize(
    "fields, is_written",
    [
        ({"prompt": "a [cat:dog:3]", "old_prompt_editing": True}, True),
        ({"negative_prompt": "[cat|dog]", "old_prompt_editing": True}, True),
        ({"prompt": "a [cat:dog:3]"}, False),
        ({"prompt": "a cat <lora:style:1>", "old_prompt_editing": True}, False),
    ],
)
def test_old_prompt_editing_is_written_where_a_prompt_may_be_edited(fields: dict[str, Any], is_written: bool) -> None:
    text = written(**fields)
    assert (", Old prompt editing timelines: True, " in text) is is_written
    assert parse_infotext(text).request.get("old_prompt_editing", False) is is_written


def test_what_overrules_the_checkpoint_is_written() -> None:
    text = written(prediction_type="v_prediction", noise_schedule="Zero Terminal SNR")
    assert ", Noise Schedule: Zero Terminal SNR, Prediction type: v_prediction, Version: " in text
    assert not {"Noise Schedule", "Prediction type"} & parameters().keys()


def test_options_that_do_not_act_are_left_out() -> None:
    options = SamplerOptions(
        eta=0.5, s_churn=5, s_noise=1.1, uni_pc_order=2, rho=3, sigma_max=20, old_karras=True, ensd=1
    )
    assert "Version" in (pairs := parameters(sampler="PLMS", sampler_options=options))
    assert not {"Eta", "Eta DDIM", "Sigma churn", "Sigma noise", "UniPC order", "Schedule rho", "ENSD"} & set(pairs)
    assert not {"Schedule max sigma", "Old Karras sigmas"} & set(pairs)
    assert "Eta DDIM" in parameters(sampler="DDIM", sampler_options=options)
    assert "Eta" not in parameters(sampler="Euler a", sampler_options=SamplerOptions(eta=1.0))


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<"), max_size=40)
PROMPTS = st.builds(
    "".join,
    st.lists(
        st.sampled_from(["a cat", ", ", "\n", "(x:1.2)", "[y]", "\\(", "<lora:style:0.5:1>", "Steps: 3, ab: 1, cd: 2"])
        | WORDS
    ),
)
NUMBERS = st.floats(0.01, 0.99).map(lambda value: round(value, 3))


@st.composite
def sampler_options(draw: st.DrawFn, spec: SamplerSpec) -> SamplerOptions:
    """Options that act on this sampler, at values that are not its defaults."""
    chosen: dict[str, Any] = {}
    names = ["discard_penultimate"] if not spec.discard_penultimate else []
    if not spec.timesteps:
        names += ["sigma_min", "sigma_max", "sgm_noise_multiplier", "old_karras"]
    if spec.default_eta is not None:
        names += ["eta"]
    if spec.churn:
        names += ["s_churn"]
    if spec.continuous_time:
        names += ["uni_pc_order", "uni_pc_variant", "uni_pc_skip_type", "uni_pc_lower_order_final"]
    values = {
        "eta": NUMBERS,
        "sigma_min": NUMBERS,
        "sigma_max": NUMBERS.map(lambda value: value + 5),
        "s_churn": NUMBERS,
        "uni_pc_order": st.integers(4, 9),
        "uni_pc_variant": st.sampled_from(["bh2", "vary_coeff"]),
        "uni_pc_skip_type": st.sampled_from(["time_quadratic", "logSNR"]),
        "uni_pc_lower_order_final": st.just(False),
    }
    for name in names:
        if draw(st.booleans()):
            chosen[name] = draw(values.get(name, st.just(True)))
    if "s_churn" in chosen:
        chosen |= {"s_tmin": draw(NUMBERS), "s_tmax": draw(NUMBERS), "s_noise": draw(NUMBERS)}
    if spec.uses_ensd and chosen.get("eta", spec.default_eta):
        chosen["ensd"] = draw(st.integers(-9, 99_999))
    return SamplerOptions(**chosen)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    spec = draw(st.sampled_from(SAMPLERS))
    return GenerationRequest(
        prompt=draw(PROMPTS),
        negative_prompt=draw(PROMPTS.map(lambda text: text.replace("<", ""))),
        sampler=spec.name,
        schedule=draw(st.sampled_from(SCHEDULES)).label,
        steps=draw(st.integers(1, 150)),
        cfg_scale=draw(st.floats(0, 100)),
        width=draw(st.integers(64, 1024)),
        height=draw(st.integers(64, 1024)),
        seed=draw(st.integers(0, 2**32 - 1)),
        variation=draw(st.none() | st.builds(Variation, seed=st.integers(0, 2**32 - 1), strength=NUMBERS)),
        seed_resize=draw(st.none() | st.builds(SeedResize, width=st.integers(64, 2048), height=st.integers(64, 2048))),
        model=draw(st.sampled_from([None, FOLDER.name])),
        vae=draw(st.sampled_from(["Automatic", "nice"])),
        clip_skip=draw(st.integers(1, 12)),
        emphasis=draw(st.sampled_from(["Original", "No norm", "Ignore", "None"])),
        old_prompt_editing=draw(st.booleans()),
        prediction_type=draw(st.sampled_from(["Automatic", "epsilon", "v_prediction"])),
        noise_schedule=draw(st.sampled_from(["Default", "Zero Terminal SNR"])),
        rng=draw(st.sampled_from(["CPU", "GPU", "NV"])),
        sampler_options=draw(sampler_options(spec)),
    )


def stripped(text: str) -> str:
    """Readers take the space around lines away, and empty lines at the beginning."""
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[0]:
        del lines[0]
    return "\n".join(lines)


@given(requests())
@settings(deadline=2000, max_examples=200)
def test_what_is_written_is_read_back_as_the_same_request(request: GenerationRequest) -> None:
    assume(not any(line.strip().startswith("Negative prompt:") for line in request.prompt.split("\n")))
    try:
        first = resolved(request)
    except InvalidRequest:
        assume(False)
    parsed = parse_infotext(write_infotext(first, 0, "1.2.3"))
    texts = (first.positive.text, first.negative.text)
    assert (parsed.prompt, parsed.negative_prompt) == (stripped(texts[0]), stripped(texts[1]))
    second = resolved(make_request(parsed.request))
    same = {"positive", "negative", "emphasis", "sampler_options", "old_prompt_editing", "options"}
    assert second.model_dump(exclude=same) == first.model_dump(exclude=same)
    assert second.sampler_options == first.sampler_options.model_copy(update={"rho": 0.0})
    syntax = any(sign in text for sign in "([" for text in texts)
    if syntax:
        assert second.emphasis == first.emphasis
    brackets = any("[" in text for text in texts)
    assert second.old_prompt_editing is (first.old_prompt_editing and brackets)
    assert [note for note in parsed.notes if "not" in note] == []
    assert find_sampler(parsed.request["sampler"]).name == request.sampler


def test_a_drawn_prompt_is_written_and_its_template_beside_it() -> None:
    text = written(prompt='a __colour__ "fox", {big|small}', negative_prompt="{x|y}", seed=2)
    parsed = parse_infotext(text)
    assert parsed.pairs["Template"] == 'a __colour__ "fox", {big|small}'
    assert parsed.pairs["Negative Template"] == "{x|y}"
    assert "{" not in parsed.request["prompt"] and "__" not in parsed.request["prompt"]
    assert any("drawn from" in note and "__colour__" in note for note in parsed.notes)
    assert not any("Not used here" in note for note in parsed.notes)
    again = resolved(make_request({**parsed.request, "model": None}))
    assert again.positive == resolved(GenerationRequest(prompt=parsed.prompt, steps=again.steps)).positive
    assert again.options.template == ""
    assert "Template" not in parameters(prompt="a fox")
