"""What a second pass comes to before anything runs: sizes, samplers, prompts, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from studio.errors import IncompatibleFile, InvalidRequest, UnknownModel, UnknownName
from studio.hires import hires_size
from studio.infotext import parse_infotext, write_infotext
from studio.resolve import fixed
from studio.samplers.planning import ENDLESS, img2img_steps
from studio.schema.parts import HiresPass
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import HiresPlan
from tests.test_resolve import run


def asked(hires: dict[str, Any], **changes: Any) -> GenerationRequest:
    return make_request(
        {"prompt": "a fox", "width": 512, "height": 768, "seed": 1, "steps": 20, "hires": hires, **changes}
    )


def plan_of(hires: dict[str, Any], **changes: Any) -> HiresPlan:
    plan = run(asked(hires, **changes)).hires
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    "part, first, covering, final",
    [
        ({"scale": 2.0}, (512, 768), (1024, 1536), (1024, 1536)),
        ({"scale": 1.25}, (520, 512), (648, 640), (648, 640)),
        ({"scale": 1.0}, (512, 512), (512, 512), (512, 512)),
        ({"width": 1000}, (512, 768), (1000, 1496), (1000, 1496)),
        ({"height": 1000}, (512, 768), (664, 1000), (664, 1000)),
        ({"width": 1024, "height": 1024}, (512, 512), (1024, 1024), (1024, 1024)),
        ({"width": 1024, "height": 1024, "scale": 4}, (512, 768), (1024, 1536), (1024, 1024)),
        ({"width": 1024, "height": 1024}, (768, 512), (1536, 1024), (1024, 1024)),
        ({"width": 1003, "height": 1029}, (512, 512), (1024, 1024), (1000, 1024)),
        ({"width": 256}, (512, 512), (256, 256), (256, 256)),
    ],
)
def test_sizes(part: dict[str, Any], first: tuple[int, int], covering: tuple[int, int], final: tuple[int, int]) -> None:
    size = hires_size(HiresPass(**part), *first)
    assert (size.covering, size.final) == (covering, final)
    assert size.resize == (
        None if "scale" in part and len(part) == 1 else (part.get("width", 0) // 8 * 8, part.get("height", 0) // 8 * 8)
    )


@pytest.mark.parametrize(
    "part, first, words, field",
    [
        ({"scale": 4.0}, (1032, 512), "4128x2048 pixels of 1032x512; its sides may have 64 to 4096", "hires.scale"),
        ({"height": 4096}, (2048, 1024), "8192x4096", "hires.height"),
        ({"width": 4096, "height": 4096}, (512, 768), "(4096x6144 before it is cut)", "hires.width"),
        ({"width": 64}, (2048, 64), "64x0", "hires.width"),
    ],
)
def test_sizes_that_cannot_be(part: dict[str, Any], first: tuple[int, int], words: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        hires_size(HiresPass(**part), *first)
    assert words in caught.value.message
    assert caught.value.field == field


def test_a_batch_of_large_pictures_is_over_the_budget() -> None:
    with pytest.raises(InvalidRequest, match="2 pictures of 4096x4096"):
        run(asked({"scale": 4}, width=1024, height=1024, batch_size=2))


def test_what_is_left_open_is_as_in_the_first_pass() -> None:
    plan = plan_of({}, sampler="DPM++ 2M", cfg_scale=4.5, negative_prompt="blurry")
    assert (plan.sampler, plan.schedule, plan.steps, plan.cfg_scale) == ("DPM++ 2M", "Karras", 20, 4.5)
    assert (plan.positive.text, plan.negative.text) == ("a fox", "blurry")
    assert (plan.upscaler, plan.denoising_strength, plan.width, plan.height) == ("Latent", 0.7, 1024, 1536)


def test_automatic_is_the_own_schedule_of_either_sampler() -> None:
    automatic = {"sampler": "DPM++ 2M", "schedule": "Automatic"}
    assert plan_of({"sampler": "DPM++ 2M SDE"}, **automatic).schedule == "Exponential"
    assert plan_of({"sampler": "DPM++ 2M SDE"}, **{**automatic, "schedule": "Karras"}).schedule == "Karras"
    assert plan_of({"sampler": "Euler", "schedule": "beta"}, **automatic).schedule == "Beta"


@pytest.mark.parametrize(
    "hires",
    [
        {"sampler": "k_euler"},
        {"schedule": "Uniform"},
        {"steps": 0, "cfg_scale": 7.0},
        {"prompt": "a fox"},
        {"checkpoint": "base"},
    ],
)
def test_what_is_the_same_anyway_is_left_out_of_the_stored_request(hires: dict[str, Any]) -> None:
    request = asked(hires, sampler="Euler", cfg_scale=7.0)
    assert fixed(request, run(request)).hires == HiresPass()


@pytest.mark.parametrize(
    "hires", [{}, {"width": 640, "scale": 3.0}, {"steps": 20}, {"refiner": "both passes"}, {"checkpoint": "two"}]
)
def test_a_stored_request_is_the_same_again(hires: dict[str, Any]) -> None:
    request = asked(hires, refiner={"checkpoint": "other"})
    once = fixed(request, run(request))
    assert run(once) == run(request)
    assert fixed(once, run(once)) == once


@pytest.mark.parametrize("size", [{"scale": 1}, {"width": 512}, {"width": 515, "height": 770}])
def test_one_that_neither_enlarges_nor_paints_is_none(size: dict[str, Any]) -> None:
    request = asked({**size, "denoising_strength": 0})
    assert run(request).hires is None
    assert fixed(request, run(request)).hires is None


def test_at_the_same_size_it_still_paints() -> None:
    plan = plan_of({"scale": 1, "denoising_strength": 0.3})
    assert (plan.width, plan.height) == (512, 768)


@pytest.mark.parametrize(
    "hires, error, field",
    [
        ({"upscaler": "4x-UltraSoft"}, UnknownName, "hires.upscaler"),
        ({"upscaler": "pickle"}, IncompatibleFile, "hires.upscaler"),
        ({"checkpoint": "gone"}, UnknownModel, "hires.checkpoint"),
        ({"checkpoint": "gone", "denoising_strength": 0}, UnknownModel, "hires.checkpoint"),
        ({"checkpoint": "broken"}, IncompatibleFile, "hires.checkpoint"),
        ({"checkpoint": "xl"}, IncompatibleFile, "hires.checkpoint"),
        ({"checkpoint": "xl", "upscaler": "Lanczos", "prompt": "<lora:ink:1>"}, IncompatibleFile, "hires.prompt"),
        ({"sampler": "Oiler"}, UnknownName, "hires.sampler"),
        ({"schedule": "Karas"}, UnknownName, "hires.schedule"),
        ({"prompt": "<lora:gone:1>"}, UnknownName, "hires.prompt"),
        ({"prompt": "<lora:big:1>"}, IncompatibleFile, "hires.prompt"),
        ({"negative_prompt": "__gone__"}, UnknownName, "hires.negative_prompt"),
        ({"denoising_strength": 0.005}, InvalidRequest, "hires.denoising_strength"),
    ],
)
def test_what_is_wrong_is_named(hires: dict[str, Any], error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        run(asked(hires))
    assert caught.value.field == field  # type: ignore[attr-defined]


def test_an_upscaler_may_be_a_model() -> None:
    """It enlarges a picture, so that any two checkpoints may paint before and after it."""
    plan = plan_of({"upscaler": "4x-UltraSharp", "checkpoint": "xl"})
    assert plan.upscaler == "4x-UltraSharp" and plan.upscaler_model and plan.upscaler_model.enlarges == 4
    assert plan.model.name == "xl"
    assert plan_of({"upscaler": "lanczos"}).upscaler_model is None
    with pytest.raises(UnknownName, match=r"Did you mean '?4x-UltraSharp"):
        run(asked({"upscaler": "4x-UltraSharpe"}))


def test_a_mistake_in_the_first_prompt_is_not_the_seconds() -> None:
    with pytest.raises(UnknownName) as caught:
        run(asked({"negative_prompt": "x"}, prompt="<lora:gone:1>"))
    assert caught.value.field == "prompt"


def test_loras_may_have_weights_of_their_own() -> None:
    for changes in ({}, {"prompt": "an owl <lora:ink:0.5:hr=0@0,1@1>"}):
        (second,) = plan_of(changes, prompt="a fox <lora:ink:0.5:hr=0@0,1@1>").loras
        assert (second.te_weight, second.unet_weight, second.unet_course) == (0.0, 0.0, ((0.0, 0.0), (1.0, 1.0)))
    resolved = run(asked({}, prompt="a fox <lora:ink:0.5:hr=0@0,1@1>"))
    assert (resolved.loras[0].unet_weight, resolved.loras[0].unet_course) == (0.5, ())
    assert not [note for note in resolved.notes if "paints the second pass without" in note]


def test_loras_are_those_of_its_own_prompt() -> None:
    same = plan_of({}, prompt="a fox <lora:ink:0.5>")
    assert [use.name for use in same.loras] == ["ink"]
    assert plan_of({"prompt": "an owl"}, prompt="a fox <lora:ink:0.5>").loras == ()
    resolved = run(asked({"prompt": "an owl <lora:odd:1>"}, prompt="a fox <lora:ink:0.5>"))
    assert [use.name for use in resolved.loras] == ["ink"]
    assert [use.name for use in resolved.all_loras] == ["ink", "odd"]


def test_another_checkpoint_is_found_and_the_same_one_is_none() -> None:
    resolved = run(asked({"checkpoint": "other"}))
    assert resolved.hires is not None
    assert (resolved.model.name, resolved.hires.model.name) == ("base", "other")
    assert [model.name for model in resolved.checkpoints] == ["base", "other"]
    for same in ({}, {"checkpoint": "base"}, {"checkpoint": "other", "denoising_strength": 0}):
        resolved = run(asked(same))
        assert resolved.hires is not None
        assert resolved.hires.model == resolved.model
        assert resolved.checkpoints == (resolved.model,)


def test_one_of_another_latent_space_takes_over_a_picture_only() -> None:
    with pytest.raises(IncompatibleFile) as caught:
        run(asked({"checkpoint": "xl"}))
    for words in ("'xl' (Stable Diffusion XL)", "'base' (Stable Diffusion 1.x)", "None, Lanczos, Nearest"):
        assert words in caught.value.message
    for upscaler in ("Lanczos", "None", "nearest"):
        assert plan_of({"checkpoint": "xl", "upscaler": upscaler}).model.name == "xl"
    with pytest.raises(IncompatibleFile, match="VAE 'soft' cannot be that of 'base'") as caught:
        run(asked({"checkpoint": "xl", "upscaler": "None"}, vae="soft"))
    assert caught.value.field == "vae"
    assert plan_of({"checkpoint": "two"}, vae="soft").model.name == "two", "SD 2's latents are SD 1's"
    with pytest.raises(
        IncompatibleFile, match="vae_decoder = 'TAESD' is not possible when 'xl' paints the second"
    ) as caught:
        run(asked({"checkpoint": "xl", "upscaler": "None"}, vae_decoder="TAESD"))
    assert caught.value.field == "vae_decoder"
    assert plan_of({"checkpoint": "finisher"}, model="xl").model.name == "finisher"


def test_a_lora_of_the_first_prompt_that_does_not_fit_is_left_out_and_told() -> None:
    resolved = run(asked({"checkpoint": "xl", "upscaler": "None"}, prompt="a fox <lora:ink:1> <lora:odd:1>"))
    assert resolved.hires is not None
    assert [use.name for use in resolved.loras] == ["ink", "odd"]
    assert [use.name for use in resolved.hires.loras] == ["odd"]
    assert resolved.notes == (
        "xl (Stable Diffusion XL) paints the second pass without ink: LoRAs are for one family of checkpoints.",
    )
    own = run(asked({"checkpoint": "xl", "upscaler": "None", "prompt": "<lora:big:1>"}, prompt="a <lora:ink:1>"))
    assert own.hires is not None
    assert [use.name for use in own.hires.loras] == ["big"]
    assert own.notes == ()
    assert run(asked({"checkpoint": "other"}, prompt="a fox <lora:ink:1>")).notes == ()


def test_embeddings_are_those_that_fit_the_checkpoint_of_the_pass() -> None:
    resolved = run(asked({"checkpoint": "xl", "upscaler": "None"}, prompt="a wash, grand"))
    assert resolved.hires is not None
    found = [[use.model.name for use in part.embeddings] for part in (resolved, resolved.hires)]
    assert found == [["wash"], ["xl/wash", "grand"]]
    assert len(resolved.notes) == 1 and "'grand' was made for" in resolved.notes[0], "of the first pass"


def test_sdxl_is_told_what_was_cut_off_in_whichever_pass_it_paints() -> None:
    crop = {"sdxl_crop_top": 8, "sdxl_crop_left": 16}
    assert run(asked({"checkpoint": "xl", "upscaler": "None"}, **crop)).sdxl_crop_left == 16
    assert run(asked({}, **crop)).sdxl_crop_left == 0


def test_a_refiner_is_none_where_it_is_the_checkpoint_of_the_pass() -> None:
    def finishing(refiner: str, which: str) -> tuple[bool, bool, str]:
        request = asked({"checkpoint": "other", "refiner": which}, refiner={"checkpoint": refiner, "switch_at": 0.5})
        resolved = run(request)
        assert run(fixed(request, resolved)) == resolved
        assert resolved.hires is not None
        return bool(resolved.refiner), bool(resolved.hires.refiner), resolved.hires.refiner_passes

    assert finishing("other", "both passes") == (True, False, "first pass")
    assert finishing("other", "second pass") == (False, False, "second pass")
    assert finishing("base", "both passes") == finishing("base", "second pass") == (False, True, "second pass")
    assert finishing("base", "first pass") == (False, False, "second pass")
    assert finishing("two", "both passes") == (True, True, "both passes")
    with pytest.raises(IncompatibleFile) as caught:
        run(asked({"checkpoint": "xl", "upscaler": "None"}, refiner={"checkpoint": "other", "switch_at": 0.5}))
    assert caught.value.field == "refiner.checkpoint"
    first = {"checkpoint": "xl", "upscaler": "None", "refiner": "first pass"}
    assert run(asked(first, refiner={"checkpoint": "other", "switch_at": 0.5})).refiner is not None


def test_embeddings_of_both_passes_are_found() -> None:
    resolved = run(asked({"prompt": "a wash"}, prompt="a fox"))
    assert resolved.hires is not None
    assert [use.name for use in resolved.hires.embeddings] == ["wash"] == [use.name for use in resolved.all_embeddings]
    assert resolved.embeddings == ()


def test_styles_wildcards_and_comments_act_on_its_prompts_too() -> None:
    resolved = run(asked({"prompt": "an owl, __colour__ # big"}, styles=("ink",), prompt="a __colour__ fox"), seed=4)
    assert resolved.hires is not None
    assert resolved.hires.positive.text in ("ink drawing of an owl, red", "ink drawing of an owl, blue")
    assert resolved.hires.negative.text == resolved.negative.text == "photo"
    assert plan_of({"prompt": "# nothing"}).positive.text == "a fox"


def test_prompts_are_edited_by_the_steps_of_the_second_pass() -> None:
    def changes(hires: dict[str, Any], **more: Any) -> int:
        plan = plan_of({"steps": 10, **hires}, prompt="a [fox:owl:1.5]", sampler="Euler", **more)
        return plan.positive.branches[0].stretches[0][0]

    assert changes({}) == 5
    assert changes({"sampler": "Heun"}) == 10, "two calls a step"
    assert changes({}, old_prompt_editing=True) == 1, "a step, in every pass"
    assert plan_of({"prompt": "a [fox:owl:25]", "steps": 10}, sampler="Euler").positive.branches[0].stretches[0][0] == 5
    assert plan_of({"prompt": "a [fox:owl:45]", "steps": 10}, sampler="Heun").positive.branches[0].stretches[0][0] == 5


def test_a_refiner_finishes_the_second_pass_unless_asked_otherwise() -> None:
    def finishing(which: str | None) -> tuple[int | None, int | None]:
        hires = {"steps": 10, "sampler": "Heun"} | ({"refiner": which} if which else {})
        refiner = {"checkpoint": "other", "switch_at": 0.5, "by_steps": True}
        resolved = run(asked(hires, sampler="Euler", refiner=refiner))
        assert resolved.hires is not None
        plans = (resolved.refiner, resolved.hires.refiner)
        first, second = (plan and plan.from_call for plan in plans)
        return first, second

    assert finishing(None) == (None, 10)
    assert finishing("first pass") == (10, None)
    assert finishing("both passes") == (10, 10)


UNUSED: dict[str, Any] = {
    "steps": 7, "sampler": "Heun", "schedule": "Beta", "cfg_scale": 2.0, "prompt": "an owl <lora:odd:1>, wash",
    "negative_prompt": "noise", "refiner": "second pass", "token_merging_ratio": 0.5, "extra_noise": 0.1,
}  # fmt: skip
"""Of a second pass, where it paints."""


@pytest.mark.parametrize("which", ["first pass", "second pass", "both passes"])
def test_one_that_only_enlarges_leaves_the_refiner_to_the_first_pass(which: str) -> None:
    request = asked(
        {"denoising_strength": 0, "upscaler": "Lanczos", "refiner": which}, refiner={"checkpoint": "other"}, steps=10
    )
    resolved = run(request)
    assert resolved.hires is not None and resolved.hires.refiner is None
    assert resolved.refiner is not None and resolved.refiner.model.name == "other"
    assert [model.name for model in resolved.checkpoints] == ["base", "other"]
    assert run(fixed(request, resolved)) == resolved
    assert run(make_request(parse_infotext(write_infotext(resolved, 0, "1")).request)) == resolved


def test_one_that_only_enlarges_tells_nothing_that_was_not_painted_with() -> None:
    """Prompts that are edited would read otherwise in a second pass, and LoRAs may have weights for it."""
    common: dict[str, Any] = {
        "prompt": "a [fox:long (owl):1.5] <lora:ink:1:hr=0.5>",
        "pad_conds": True,
        "token_merging_ratio": 0.25,
    }
    only = {"denoising_strength": 0, "upscaler": "Lanczos"}
    plain, resolved = run(asked(only, **common)), run(asked({**only, **UNUSED}, **common))
    assert resolved == plain
    plan = resolved.hires
    assert plan is not None
    for name in ("positive", "negative", "loras", "sampler", "schedule", "cfg_scale", "steps", "embeddings", "padding"):
        assert getattr(plan, name) == getattr(resolved, name), name
    text = write_infotext(resolved, 0, "1")
    assert [key for key in parse_infotext(text).pairs if "ires" in key or key.endswith("hr")] == [
        "Hires upscale",
        "Hires upscaler",
    ]
    assert run(make_request(parse_infotext(text).request)) == resolved


def test_a_strength_next_to_nothing_is_refused_and_not_an_endless_schedule() -> None:
    for strength in (5e-324, 1e-300, 1e-9):
        assert img2img_steps(20, strength, exact_steps=True)[0] == ENDLESS
