"""`resolve`: every open question answered, every wrong one named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import IncompatibleFile, InvalidRequest, UnknownModel, UnknownName
from studio.naming import expand, picture_facts
from studio.prompt import Style
from studio.resolve import fixed, resolve
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo, ModelKind
from studio.schema.parts import MAX_SEED, Refiner, SeedResize, Variation
from studio.schema.request import GenerationRequest
from studio.schema.resolved import RefinerPlan, ResolvedRequest, VariationPlan


def model(name: str, kind: ModelKind = "checkpoint", **facts: object) -> ModelInfo:
    data = {"family": "sd1", "path": f"/m/{name}", "layout": "file", "size": 1, "mtime": 1.0}
    return ModelInfo.model_validate({"kind": kind, "name": name, **data, **facts})


class Shelf:
    """A library of a few models."""

    def __init__(self, *models: ModelInfo) -> None:
        self.models = {(m.kind, m.name): m for m in models}

    def checkpoint(self, name: str | None) -> ModelInfo:
        known = [n for kind, n in self.models if kind == "checkpoint"]
        found = self.models.get(("checkpoint", name or known[0]))
        if found is None:
            raise UnknownModel.of("checkpoint", str(name), known, field="model")
        return found

    def vae(self, name: str) -> ModelInfo | None:
        return None if name in ("Automatic", "None") else self.models["vae", name]

    def tiny_vae(self, latent_space: str, half: str) -> Path:
        return Path("/m") / f"{latent_space}_{half}.safetensors"

    def face_plan(self, name: str, weight: float) -> FacePlan:
        return FacePlan(
            name=name,
            architecture="CodeFormer" if name == "CodeFormer" else "GFPGAN",
            file=f"/m/{name}.safetensors",
            detector="/m/found.safetensors",
            weight=weight if name == "CodeFormer" else 0.5,
        )

    def lora(self, name: str) -> ModelInfo:
        found = self.models.get(("lora", name))
        if found is None:
            raise UnknownName.of("LoRA", name, [n for kind, n in self.models if kind == "lora"], field="prompt")
        return found

    def hypernetwork(self, name: str) -> ModelInfo:
        found = self.models.get(("hypernetwork", name))
        if found is None:
            raise UnknownName.of("hypernetwork", name, ["ink", "glaze"], field="prompt")
        return found

    def lora_hashes(self) -> dict[str, str]:
        return {}

    def embedding_hashes(self) -> dict[str, str]:
        return {}

    def embeddings(self) -> list[ModelInfo]:
        return [info for (kind, _), info in self.models.items() if kind == "embedding"]

    def embedding(self, name: str) -> ModelInfo:
        return self.models["embedding", name].model_copy(update={"short_hash": "0123456789ab"})

    def upscaler(self, name: str) -> ModelInfo:
        found = self.models.get(("upscaler", name))
        if found is None:
            raise UnknownName.of("upscaler", name, [n for kind, n in self.models if kind == "upscaler"])
        return found

    def style(self, name: str) -> Style:
        if name != "ink":
            raise UnknownName.of("style", name, ["ink"], field="styles")
        return Style("ink", "ink drawing of {prompt}", "photo")

    def wildcard(self, name: str) -> list[str]:
        if name != "colour":
            raise UnknownName.of("wildcard", name, ["colour"], field="prompt")
        return ["red", "blue"]


SHELF = Shelf(
    model("base"),
    model("other"),
    model("broken", problem="it is truncated."),
    model("soft", "vae"),
    model("ink", "lora"),
    model("big", "lora", family="sdxl"),
    model("odd", "lora", family="unknown"),
    model("ink", "hypernetwork"),
    model("glaze", "hypernetwork", family="unknown"),
    model("cracked", "hypernetwork", problem="it is truncated."),
    model("wash", "embedding", vectors=2, text_widths=(768,)),
    model("old/wash", "embedding", vectors=5, text_widths=(768,)),
    model("xl/wash", "embedding", vectors=7, text_widths=(768, 1280), family="sdxl"),
    model("grand", "embedding", vectors=3, text_widths=(768, 1280), family="sdxl"),
    model("tiny", "embedding", vectors=1, text_widths=(32,), family="unknown"),
    model("pickled", "embedding", problem="pickled.pt is a pickle file."),
    model("4x-UltraSharp", "upscaler", enlarges=4),
    model("sub/RealESRGAN_x4plus", "upscaler", enlarges=4),
    model("pickle", "upscaler", problem="pickle.pth is a pickle file."),
    model("xl", family="sdxl"),
    model("finisher", family="sdxl_refiner"),
    model("two", family="sd2"),
)


def run(request: GenerationRequest, seed: int = 5, selected: str = "") -> ResolvedRequest:
    return resolve(request, SHELF, lambda: seed, selected_checkpoint=selected)


def test_seeds_are_drawn_counted_and_wrap_around() -> None:
    assert run(GenerationRequest(batch_count=2, batch_size=2), seed=7).seeds == (7, 8, 9, 10)
    assert run(GenerationRequest(seed=MAX_SEED, batch_size=2)).seeds == (MAX_SEED, 0)


def test_with_a_variation_the_seed_stays_and_the_variation_seeds_count() -> None:
    asked = GenerationRequest(seed=7, variation=Variation(seed=MAX_SEED - 1, strength=0.5), batch_count=2, batch_size=2)
    resolved = run(asked)
    assert resolved.seeds == (7, 7, 7, 7)
    assert resolved.variation == VariationPlan(seeds=(MAX_SEED - 1, MAX_SEED, 0, 1), strength=0.5)
    assert run(GenerationRequest(seed=7, variation=Variation(seed=3, strength=0), batch_size=2)).seeds == (7, 8)


def test_a_variation_seed_of_minus_one_is_drawn_and_fixed() -> None:
    asked = GenerationRequest(seed=7, variation=Variation(strength=0.5), seed_resize=SeedResize(width=100, height=64))
    resolved = run(asked, seed=1234)
    assert resolved.seeds == (7,)
    assert resolved.variation == VariationPlan(seeds=(1234,), strength=0.5)
    assert resolved.seed_resize == SeedResize(width=96, height=64)
    kept = fixed(asked, resolved)
    assert kept.variation == Variation(seed=1234, strength=0.5)
    assert run(kept, seed=99) == resolved


def refiner_of(model: str, checkpoint: str, **changes: Any) -> RefinerPlan | None:
    part = Refiner(
        checkpoint=checkpoint, switch_at=changes.pop("switch_at", 0.7), by_steps=changes.pop("by_steps", False)
    )
    asked = GenerationRequest(seed=1, model=model, refiner=part, **changes)
    resolved = run(asked)
    kept = fixed(asked, resolved)
    assert run(kept) == resolved
    assert (kept.refiner is None) == (resolved.refiner is None)
    return resolved.refiner


def test_a_refiner_is_looked_up_and_must_share_the_latents() -> None:
    found = refiner_of("xl", "finisher")
    assert found == RefinerPlan(model=SHELF.models["checkpoint", "finisher"], switch_at=0.7, from_call=None)
    assert refiner_of("base", "other") and refiner_of("base", "two") and refiner_of("finisher", "xl")
    assert refiner_of("base", "base") is None, "a refiner that is the checkpoint itself changes nothing"
    for checkpoint, error, said in (
        ("xl", IncompatibleFile, "their latents differ"),
        ("broken", IncompatibleFile, "truncated"),
        ("bass", UnknownModel, "'base'"),
    ):
        with pytest.raises(error, match=said) as caught:
            refiner_of("base", checkpoint)
        assert caught.value.field == "refiner.checkpoint"


@pytest.mark.parametrize(
    "sampler, steps, switch_at, call",
    [("Euler", 20, 0.8, 16), ("Euler", 10, 0.7, 7), ("Euler", 7, 0.5, 4), ("Heun", 10, 0.25, 5), ("Euler", 10, 0.0, 0)],
)
def test_by_steps_a_refiner_begins_at_the_first_call_that_has_gone_far_enough(
    sampler: str, steps: int, switch_at: float, call: int
) -> None:
    found = refiner_of("base", "other", switch_at=switch_at, by_steps=True, sampler=sampler, steps=steps)
    assert found and found.from_call == call


def test_schedule_automatic_becomes_the_samplers_own_and_the_label_says_what_a1111_shows() -> None:
    own = run(GenerationRequest(sampler="DPM++ 2M"))
    assert (own.schedule, own.schedule_label) == ("Karras", "Karras")
    none = run(GenerationRequest(sampler="k_euler"))
    assert (none.sampler, none.schedule, none.schedule_label) == ("Euler", "Uniform", "Automatic")
    asked = run(GenerationRequest(sampler="Euler", schedule="exponential"))
    assert (asked.schedule, asked.schedule_label) == ("Exponential", "Exponential")


def test_sizes_round_down_to_eight_and_a_batch_has_a_pixel_budget() -> None:
    resolved = run(GenerationRequest(width=103, height=127))
    assert (resolved.width, resolved.height) == (96, 120)
    with pytest.raises(InvalidRequest, match="batch may have"):
        run(GenerationRequest(width=2048, height=2048, batch_size=16))


def test_model_order_request_then_selected_then_first() -> None:
    assert run(GenerationRequest(model="other"), selected="base").model.name == "other"
    assert run(GenerationRequest(), selected="other").model.name == "other"
    assert run(GenerationRequest()).model.name == "base"
    assert run(GenerationRequest(vae="soft")).vae == SHELF.models["vae", "soft"]


def test_embeddings_are_found_in_both_prompts_each_once() -> None:
    resolved = run(GenerationRequest(prompt="(WASH:1.2), [a fox:wash:0.5] AND washes", negative_prompt="a wash"))
    (use,) = resolved.embeddings
    assert (use.name, use.model.vectors, use.model.short_hash) == ("wash", 2, "0123456789ab")
    assert resolved.notes == ()
    assert run(GenerationRequest(prompt="a fox")).embeddings == ()
    assert run(GenerationRequest(negative_prompt="[a:b|wash]")).embeddings == (use,)


@pytest.mark.parametrize(
    "word, reason",
    [
        ("grand", "'grand' was made for Stable Diffusion XL (vectors 768 and 1280 wide), the checkpoint 'base' is"),
        ("tiny", "'tiny' was made for another kind of model (vectors 32 wide), the checkpoint"),
        ("pickled", "'pickled' cannot be used, so its name was read as ordinary words: pickled.pt is a pickle"),
    ],
)
def test_an_embedding_that_does_not_fit_is_words_and_a_note(word: str, reason: str) -> None:
    resolved = run(GenerationRequest(prompt=f"a {word} wash, {word}"))
    assert [use.name for use in resolved.embeddings] == ["wash"]
    (note,) = resolved.notes
    assert reason in note


def test_the_widths_of_the_text_encoders_decide_where_they_are_known() -> None:
    small = Shelf(
        model("base", text_widths=(32,)), *(info for info in SHELF.models.values() if info.kind != "checkpoint")
    )
    resolved = resolve(GenerationRequest(prompt="tiny wash"), small, lambda: 5)
    assert [use.name for use in resolved.embeddings] == ["tiny"]
    assert "'wash' was made for Stable Diffusion 1.x (vectors 768 wide)" in resolved.notes[0]


def test_loras_are_found_weighed_and_taken_out_of_what_is_encoded() -> None:
    resolved = run(GenerationRequest(prompt="a (red:1.2) fox <lora:ink:0.5:0.7><lora:odd>"))
    assert [(use.name, use.te_weight, use.unet_weight) for use in resolved.loras] == [
        ("ink", 0.5, 0.7),
        ("odd", 1.0, 1.0),
    ]
    ((wording,),) = [branch.texts for branch in resolved.positive.branches]
    assert ("red", 1.2) in wording
    assert "lora" not in "".join(text for text, _ in wording)
    assert resolved.positive.text == "a (red:1.2) fox <lora:ink:0.5:0.7><lora:odd>"


def test_a_loras_weight_may_change_over_the_steps() -> None:
    resolved = run(GenerationRequest(prompt="a fox <lora:ink:0.5:0@0,1@0.5> <lora:odd:0.2@0,1@1>"))
    assert [(use.name, use.te_weight, use.unet_weight, use.unet_course) for use in resolved.loras] == [
        ("ink", 0.5, 0.0, ((0.0, 0.0), (1.0, 0.5))),
        ("odd", 0.2, 0.2, ((0.2, 0.0), (1.0, 1.0))),
    ]
    with pytest.raises(
        InvalidRequest, match=r"'1@0@1' in <lora:ink:1@0@1> must be a number such as 0\.8, or weights at steps"
    ):
        run(GenerationRequest(prompt="a fox <lora:ink:1@0@1>"))
    with pytest.raises(InvalidRequest, match="'x' in"):
        run(GenerationRequest(prompt="a fox <lora:ink:1:hr=x>"))


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"model": "bass"}, UnknownModel, "'base'"),
        ({"model": "broken"}, IncompatibleFile, "truncated"),
        ({"sampler": "Eular"}, UnknownName, "'Euler'"),
        ({"schedule": "Karas"}, UnknownName, "'Karras'"),
        ({"prompt": "<lora:inc:1>"}, UnknownName, "'ink'"),
        ({"prompt": "<lora:big:1>"}, IncompatibleFile, "sdxl"),
        ({"styles": ["inc"]}, UnknownName, "'ink'"),
        ({"prompt": "a __color__ fox"}, UnknownName, "'colour'"),
    ],
)
def test_wrong_names_are_named_with_what_is_near(change: dict[str, str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(GenerationRequest.model_validate(change))


def test_faces_are_restored_where_a_name_is_given() -> None:
    def asked(name: str, weight: float = 0.2) -> GenerationRequest:
        return GenerationRequest(seed=1, face_restoration=name, code_former_weight=weight)

    assert run(asked("")).faces is run(asked(" None ")).faces is None
    plan = run(asked(" CodeFormer ")).faces
    assert plan and (plan.name, plan.weight, plan.detector) == ("CodeFormer", 0.2, "/m/found.safetensors")
    for name, weight in (("", 0.5), ("GFPGAN", 0.5), ("CodeFormer", 0.2)):
        request = asked(name)
        assert fixed(request, run(request)) == asked(name, weight).model_copy(
            update={"model": "base", "schedule": fixed(request, run(request)).schedule}
        )


@pytest.mark.parametrize(
    "hires, encodes",
    [
        (None, False),
        ({"upscaler": "Latent"}, False),
        ({"upscaler": "Lanczos"}, True),
        ({"upscaler": "None", "denoising_strength": 0.0}, False),
    ],
)
def test_the_tiny_autoencoder_stands_in_where_something_is_encoded(hires: dict[str, Any] | None, encodes: bool) -> None:
    request = GenerationRequest.model_validate(
        {"vae_encoder": "TAESD", "vae_decoder": "TAESD", "seed": 1, "hires": hires}
    )
    resolved = run(request)
    assert resolved.tiny_decoder == "/m/sd_decoder.safetensors"
    assert resolved.tiny_encoder == ("/m/sd_encoder.safetensors" if encodes else None)
    assert fixed(request, resolved).vae_encoder == ("TAESD" if encodes else "Full")
    plain = run(GenerationRequest(seed=1))
    assert (plain.tiny_encoder, plain.tiny_decoder) == (None, None)


@given(st.integers(-1, MAX_SEED), st.integers(64, 2048), st.sampled_from(["Euler", "dpm++ 2m", "DDIM"]))
def test_a_fixed_request_resolves_to_the_same_again(seed: int, width: int, sampler: str) -> None:
    first = run(GenerationRequest(seed=seed, width=width, sampler=sampler, model="other"))
    again = run(fixed(GenerationRequest(seed=seed, width=width, sampler=sampler, model="other"), first), seed=99)
    assert again == first


def test_prompts_are_taken_apart_over_the_models_calls() -> None:
    asked = GenerationRequest(
        prompt="a [red:(blue:1.2):0.5] fox AND snow :0.4 <lora:ink>", negative_prompt="[x|y]", steps=4
    )
    resolved = run(asked)
    fox, snow = resolved.positive.branches
    assert fox.texts == ((("a red fox", 1.0),), (("a ", 1.0), ("blue", 1.2), (" fox", 1.0)))
    assert (fox.stretches, fox.weight) == (((2, 0), (4, 1)), 1.0)
    assert (snow.texts, snow.stretches, snow.weight) == (((((" snow", 1.0),)),), ((4, 0),), 0.4)
    (negative,) = resolved.negative.branches
    assert (negative.texts, negative.stretches) == (((("x", 1.0),), (("y", 1.0),)), ((1, 0), (2, 1), (3, 0), (4, 1)))


def test_samplers_of_second_order_count_two_calls_a_step() -> None:
    resolved = run(GenerationRequest(prompt="[a:b:0.5]", sampler="Heun", steps=4))
    assert resolved.positive.branches[0].stretches == ((4, 0), (8, 1))


def test_prompts_may_be_edited_as_before_1_6() -> None:
    """1.0 is a share of the steps today (all of them) and was step 1."""
    asked = GenerationRequest(prompt="[a:b:1.0]", negative_prompt="[c:d:0.5]", steps=4)
    assert run(asked).positive.branches[0].stretches == ((4, 0),)
    old = run(asked.model_copy(update={"old_prompt_editing": True}))
    assert old.positive.branches[0].stretches == ((1, 0), (4, 1))
    assert old.negative == run(asked).negative
    assert old.old_prompt_editing


def test_styles_are_merged_and_comments_are_gone() -> None:
    resolved = run(GenerationRequest(prompt="a fox # red?\nin snow", negative_prompt="blur", styles=("ink",)))
    assert resolved.positive.text == "ink drawing of a fox \nin snow"
    assert resolved.negative.text == "blur, photo"
    assert resolved.positive.branches[0].texts == ((("ink drawing of a fox \nin snow", 1.0),),)


def test_file_names_may_tell_styles() -> None:
    asked = GenerationRequest(prompt="a fox", styles=("ink",))
    resolved = run(asked)
    assert expand("[styles] [prompt_no_styles]", picture_facts(resolved, 0, 0.0)).text == "ink a fox"
    waited = resolve(fixed(asked, resolved), SHELF, lambda: 9, options=resolved.options)  # as a job of the queue is
    assert expand("[styles] [prompt_no_styles]", picture_facts(waited, 0, 0.0)).text == "ink a fox"


def test_wildcards_are_drawn_by_the_seed_and_the_template_is_kept() -> None:
    asked = GenerationRequest(prompt="a __colour__ {fox|owl}", negative_prompt="{x|y}", seed=4)
    first = run(asked)
    assert first.positive.text in {"a red fox", "a red owl", "a blue fox", "a blue owl"}
    assert (first.options.template, first.options.negative_template) == ("a __colour__ {fox|owl}", "{x|y}")
    assert run(asked) == first
    texts = {run(asked.model_copy(update={"seed": seed})).positive.text for seed in range(40)}
    assert len(texts) == 4


def test_what_was_drawn_is_not_drawn_again() -> None:
    asked = GenerationRequest(prompt="{_|_}_colour__ __colour__", styles=("ink",), seed=3)
    first = run(asked)
    stored = fixed(asked, first)
    assert stored.styles == ()
    again = resolve(stored, SHELF, lambda: 9, options=first.options)
    assert again == first
    assert again.options.template == "ink drawing of {_|_}_colour__ __colour__"


def test_an_unknown_wildcard_names_the_field_it_stands_in() -> None:
    with pytest.raises(UnknownName) as caught:
        run(GenerationRequest(negative_prompt="__color__"))
    assert caught.value.field == "negative_prompt"
