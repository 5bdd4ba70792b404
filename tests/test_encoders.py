"""Separate text encoders and VAEs of both passes: which fit, what a second pass takes over, and how a request names them."""

from __future__ import annotations

from typing import Any

import pytest

from studio.encoders import sorted_modules
from studio.errors import IncompatibleFile, StudioError, UnknownModel
from studio.infotext import parse_infotext, write_infotext
from studio.resolve import fixed, resolve
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest, make_request
from studio.schema.resolved import ResolvedRequest
from tests.test_resolve import Shelf, model


class Encoders(Shelf):
    """With text encoders; `sharp` is a VAE."""

    def text_encoder(self, name: str) -> ModelInfo:
        found = self.models.get(("text_encoder", name.removesuffix(".safetensors")))
        if found is None:
            raise UnknownModel.of("text encoder", name, ["clip_l"], field="text_encoders")
        return found

    def vae(self, name: str) -> ModelInfo | None:
        if name in ("", "Automatic"):
            return None
        found = self.models.get(("vae", name.removesuffix(".safetensors")))
        if found is None:
            raise UnknownModel.of("VAE", name, ["sharp"], field="vae")
        return found


def encoder(name: str, width: int, **facts: Any) -> ModelInfo:
    path = f"/m/text_encoders/{name}.safetensors"
    return model(name, "text_encoder", family="unknown", text_widths=(width,), path=path, **facts)


LIBRARY = Encoders(
    model("base", text_widths=(768,)),
    model("plain"),
    model("other", text_widths=(768,)),
    model("grand", family="sdxl", text_widths=(768, 1280)),
    encoder("clip_l", 768),
    encoder("sub/tuned_l", 768),
    encoder("clip_g", 1280),
    encoder("broken", 768, problem="It is cut off."),
    model("sharp", "vae", family="unknown", path="/m/vae/sharp.safetensors"),
    model("soft", "vae", family="unknown", path="/m/vae/soft.safetensors"),
)


def run(**fields: Any) -> ResolvedRequest:
    return resolve(make_request({"prompt": "a fox", "seed": 5, **fields}), LIBRARY, lambda: 1)


def names(models: tuple[ModelInfo, ...]) -> list[str]:
    return [each.name for each in models]


def test_they_stand_in_the_order_of_the_checkpoints_own() -> None:
    found = run(model="grand", text_encoders=("clip_g", "clip_l"))
    assert names(found.text_encoders) == ["clip_l", "clip_g"]
    assert names(run(model="grand", text_encoders=("clip_g",)).text_encoders) == ["clip_g"]
    assert names(run(model="plain", text_encoders=("clip_g", "clip_l")).text_encoders) == ["clip_g", "clip_l"]
    assert run(text_encoders=(" ", "None", "Built-in", "automatic")).text_encoders == ()
    assert GenerationRequest(text_encoders=("a ", "a")).text_encoders == ("a",)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"text_encoders": ("clip_g",)}, "text_encoders", r"'clip_g' has token vectors 1280 wide; 'base' .* reads prompts with 768\."),
        ({"text_encoders": ("clip_l", "sub/tuned_l")}, "text_encoders", "'clip_l' and 'sub/tuned_l' are both 768 wide"),
        ({"text_encoders": ("broken",)}, "text_encoders", "It is cut off"),
        ({"text_encoders": ("clip_x",)}, "text_encoders", "no text encoder named 'clip_x'"),
        ({"hires": {"text_encoders": ("clip_x",)}}, "hires.text_encoders", "no text encoder named 'clip_x'"),
        ({"hires": {"text_encoders": ("clip_g",)}}, "hires.text_encoders", "'clip_g' has token vectors"),
        ({"hires": {"vae": "dull"}}, "hires.vae", "no VAE named 'dull'"),
        ({"model": "grand", "text_encoders": ("clip_g",), "hires": {"checkpoint": "base", "upscaler": "Lanczos"}},
         "hires.text_encoders", "Choose Built-in, which is the checkpoint's own"),
        ({"vae": "sharp", "hires": {"checkpoint": "grand", "upscaler": "Lanczos"}}, "vae", r"hires\.vae"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(StudioError, match=words) as caught:
        run(**fields)
    assert caught.value.field == field
    assert isinstance(caught.value, IncompatibleFile | UnknownModel)


FIRST: dict[str, Any] = {"text_encoders": ("clip_l",), "vae": "sharp"}


@pytest.mark.parametrize(
    ("hires", "encoders", "vae"),
    [
        ({}, ["clip_l"], "sharp"),
        ({"vae": "Use same VAE", "text_encoders": ("Use same choices",)}, ["clip_l"], "sharp"),
        ({"text_encoders": ("Built-in",)}, [], "sharp"),
        ({"text_encoders": ("sub/tuned_l",)}, ["sub/tuned_l"], "sharp"),
        ({"vae": "Automatic"}, ["clip_l"], None),
        ({"vae": "None", "text_encoders": ("none", "sub/tuned_l")}, ["sub/tuned_l"], None),
        ({"vae": "soft", "checkpoint": "other"}, ["clip_l"], "soft"),
        ({"vae": "soft", "text_encoders": ("Built-in",), "denoising_strength": 0}, ["clip_l"], "sharp"),
    ],
)
def test_a_second_pass_takes_over_what_it_does_not_name(
    hires: dict[str, Any], encoders: list[str], vae: str | None
) -> None:
    request = make_request({"prompt": "a fox", "seed": 5, **FIRST, "hires": hires})
    found = resolve(request, LIBRARY, lambda: 1)
    assert found.hires is not None
    assert names(found.hires.text_encoders) == encoders
    assert (found.hires.vae.name if found.hires.vae else None) == vae == (found.final_vae and found.final_vae.name)
    again = fixed(request, found)
    assert resolve(again, LIBRARY, lambda: 2) == found
    assert fixed(again, found) == again


def test_what_is_as_in_the_first_pass_is_named_by_nothing() -> None:
    request = make_request({**FIRST, "seed": 1, "hires": {"vae": "sharp", "text_encoders": ("clip_l",)}})
    part = fixed(request, resolve(request, LIBRARY, lambda: 1)).hires
    assert part is not None and (part.vae, part.text_encoders) == ("", ())


def test_another_vae_lets_a_checkpoint_of_other_latents_go_on() -> None:
    found = run(vae="sharp", hires={"checkpoint": "grand", "upscaler": "Lanczos", "vae": "Automatic"})
    assert found.hires is not None and found.hires.vae is None and found.hires.model.name == "grand"
    assert [each.name for each in found.all_vaes] == ["sharp"]


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"text_encoders": ("sub/tuned_l",)}, {"Module 1": "tuned_l"}),
        (
            {"model": "grand", "text_encoders": ("clip_g", "clip_l"), "vae": "sharp"},
            {"Module 1": "clip_l", "Module 2": "clip_g"},
        ),
        ({**FIRST, "hires": {}}, {"Module 1": "clip_l"}),
        ({**FIRST, "hires": {"vae": "Automatic"}}, {"Module 1": "clip_l", "Hires Module 1": "clip_l"}),
        (
            {**FIRST, "hires": {"vae": "soft"}},
            {"Module 1": "clip_l", "Hires Module 1": "clip_l", "Hires Module 2": "soft"},
        ),
        ({**FIRST, "hires": {"text_encoders": ("Built-in",)}}, {"Module 1": "clip_l", "Hires Module 1": "sharp"}),
        (
            {**FIRST, "hires": {"text_encoders": ("Built-in",), "vae": "None"}},
            {"Module 1": "clip_l", "Hires Module 1": "Built-in"},
        ),
        ({"hires": {"text_encoders": ("clip_l",)}}, {"Hires Module 1": "clip_l"}),
        ({"hires": {"vae": "soft"}}, {"Hires Module 1": "soft"}),
    ],
)
def test_a_text_names_them_and_is_read(fields: dict[str, Any], keys: dict[str, str]) -> None:
    """Forge's keys; with all files of the second pass where any of them is another one."""
    request = make_request({"prompt": "a fox", "seed": 5, "model": "base", **fields})
    found = resolve(request, LIBRARY, lambda: 1)
    parsed = parse_infotext(write_infotext(found, 0, "1"))
    assert parsed.notes == []
    assert {key: value for key, value in parsed.pairs.items() if "Module" in key} == keys
    again = make_request(sorted_modules(parsed.request, Stems(LIBRARY)))
    assert fixed(again, resolve(again, LIBRARY, lambda: 2)) == fixed(request, found)


class Stems(Encoders):
    """Finds a file by the end of its name too, as the library does."""

    def __init__(self, shelf: Encoders) -> None:
        self.models = {**shelf.models, ("text_encoder", "tuned_l"): shelf.models["text_encoder", "sub/tuned_l"]}


LINE = "a fox\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 5, Size: 64x64, Model: base, RNG: CPU"
ON = f"{LINE}, Denoising strength: 0.5, Hires upscale: 2"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (f"{LINE}, Module 2: sharp, Module 1: clip_l", {"text_encoders": ("clip_l",), "vae": "sharp"}),
        (f"{LINE}, Module 1: sharp.safetensors", {"text_encoders": (), "vae": "sharp"}),
        (f"{LINE}, VAE: soft, Module 1: sharp", {"text_encoders": (), "vae": "soft"}),
        (f"{LINE}, Module 1: t5xxl, Module 2: clip_l", {"text_encoders": ("t5xxl", "clip_l"), "vae": "Automatic"}),
        (f"{LINE}, Module 10: clip_g, Module 2: clip_l", {"text_encoders": ("clip_l", "clip_g")}),
        (LINE, {"text_encoders": None, "vae": "Automatic"}),
    ],
)
def test_modules_of_forge_go_where_they_belong(text: str, fields: dict[str, Any]) -> None:
    found = sorted_modules(parse_infotext(text).request, LIBRARY)
    assert {name: found.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ("Hires Module 1: Use same choices", {}),
        ("Hires Module 1: Built-in", {"vae": "Automatic", "text_encoders": ("Built-in",)}),
        ("Hires Module 1: soft", {"vae": "soft", "text_encoders": ("Built-in",)}),
        ("Hires Module 1: clip_l, Hires Module 2: soft", {"vae": "soft", "text_encoders": ("clip_l",)}),
        ("Hires Module 1: clip_x", {"vae": "Automatic", "text_encoders": ("clip_x",)}),
        ("Hires VAE: soft", {"vae": "soft"}),
        ("Hires VAE: Use same VAE", {}),
        ("Hires VAE: None", {"vae": "Automatic"}),
    ],
)
def test_modules_of_a_second_pass(pairs: str, part: dict[str, Any]) -> None:
    parsed = parse_infotext(f"{ON}, {pairs}")
    assert parsed.notes == []
    hires = sorted_modules(parsed.request, LIBRARY)["hires"]
    assert {name: hires[name] for name in ("vae", "text_encoders") if hires[name]} == part


def test_without_a_second_pass_they_are_noted() -> None:
    assert any("Hires Module 1 clip_l" in note for note in parse_infotext(f"{LINE}, Hires Module 1: clip_l").notes)
