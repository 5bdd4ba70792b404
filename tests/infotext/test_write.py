"""Writing: the text, its keys and their order, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.errors import UnknownName
from studio.infotext import parse_infotext, write_infotext
from studio.prompt import Style
from studio.resolve import resolve
from studio.schema.faces import FacePlan
from studio.schema.models import ModelInfo
from studio.schema.parts import SamplerOptions, SeedResize, Variation
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.schema.resolved import RefinerPlan, ResolvedRequest


def info(kind: Any, name: str, **more: Any) -> ModelInfo:
    path = f"/m/{name}.safetensors"
    return ModelInfo(
        **{"kind": kind, "name": name, "path": path, "layout": "file", "family": "sd1", "size": 1, "mtime": 0.0, **more}
    )


CHECKPOINT = info("checkpoint", "painter", short_hash="0123456789")
FOLDER = info("checkpoint", "sub/sprout", layout="folder", path="/m/sub/sprout", model_id="abcdefabcdef")
VAE = info("vae", "nice.vae", short_hash="aaaaaaaaaa")
LORA = info("lora", "style", short_hash="0123456789ab")
EMBEDDING = info("embedding", "sub/soft, wash", path="/m/soft, wash.safetensors", vectors=2, short_hash="ba9876543210")
NEW = info("embedding", "not hashed yet", vectors=2)


class Shelf:
    """A library of one of each."""

    def checkpoint(self, name: str | None) -> ModelInfo:
        return FOLDER if name == FOLDER.name else CHECKPOINT

    def vae(self, name: str) -> ModelInfo | None:
        return None if name == "Automatic" else VAE

    def tiny_vae(self, latent_space: str, half: str) -> Path:
        return Path("/m") / f"{latent_space}_{half}.safetensors"

    def face_plan(self, name: str, weight: float) -> FacePlan:
        return FacePlan(
            name=name,
            architecture="CodeFormer" if name == "CodeFormer" else "GFPGAN",
            file="/m/the file.safetensors",
            detector="/m/found.safetensors",
            weight=weight if name == "CodeFormer" else 0.5,
        )

    def lora(self, name: str) -> ModelInfo:
        if name != "style":
            raise UnknownName.of("LoRA", name, ["style"])
        return LORA

    def hypernetwork(self, name: str) -> ModelInfo:
        raise AssertionError(name)

    def lora_hashes(self) -> dict[str, str]:
        return {}

    def embedding_hashes(self) -> dict[str, str]:
        return {}

    def embeddings(self) -> list[ModelInfo]:
        return [EMBEDDING, NEW]

    def embedding(self, name: str) -> ModelInfo:
        return {EMBEDDING.name: EMBEDDING, NEW.name: NEW}[name]

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


def test_the_tiny_autoencoder_is_told_where_it_acts() -> None:
    taesd = {"vae_encoder": "TAESD", "vae_decoder": "TAESD"}
    assert "VAE Encoder" not in parameters(**taesd)
    assert parameters(**taesd)["VAE Decoder"] == "TAESD"
    assert parameters(**taesd, hires={"upscaler": "Lanczos"})["VAE Encoder"] == "TAESD"
    assert not {"VAE Encoder", "VAE Decoder"} & parameters(hires={"upscaler": "Lanczos"}).keys()


def test_restored_faces_are_told_with_the_file_and_what_acts() -> None:
    keys = ["Face restoration", "Face restoration file", "CodeFormer weight"]

    def told(**asked: Any) -> list[str | None]:
        return [parameters(**asked).get(key) for key in keys]

    assert told() == told(code_former_weight=0.2) == [None, None, None]
    assert told(face_restoration="GFPGAN", code_former_weight=0.2) == ["GFPGAN", "the file", None]
    assert told(face_restoration="the file") == ["the file", None, None]
    assert told(face_restoration="CodeFormer", code_former_weight=0.2) == ["CodeFormer", "the file", "0.2"]
    assert "Seed: 1, Face restoration: GFPGAN, Size:" in written(seed=1, face_restoration="GFPGAN")


def test_hashes_of_embeddings() -> None:
    text = written(prompt="soft, wash <lora:style:1>", negative_prompt="not hashed yet", emphasis="Ignore")
    assert (
        ', Lora hashes: "style: 0123456789ab", TI hashes: "soft wash: ba9876543210", TI: not hashed yet, Version'
        in text
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


def test_a_refiner_is_named_as_a1111_names_it() -> None:
    other = CHECKPOINT.model_copy(
        update={"name": "xl/finisher", "path": "/m/xl/finisher.safetensors", "short_hash": "7440042bbd"}
    )
    painted = resolved(GenerationRequest())

    def said(**plan: Any) -> str:
        refined = painted.model_copy(update={"refiner": RefinerPlan.model_validate({"model": other, **plan})})
        return write_infotext(refined, 0, "1")

    assert "Refiner: finisher [7440042bbd], Refiner switch at: 0.8, Version" in said(switch_at=0.8)
    by_steps = said(switch_at=0.8, from_call=16)
    assert (
        "Refiner switch by sampling steps: True, Refiner: finisher [7440042bbd], Refiner switch at: 0.8, " in by_steps
    )
    assert parse_infotext(by_steps).request["refiner"] == {
        "checkpoint": "finisher [7440042bbd]",
        "switch_at": 0.8,
        "by_steps": True,
    }
    other = other.model_copy(update={"layout": "folder", "short_hash": None, "model_id": "abcdefabcdef"})
    assert "Refiner: xl/finisher, Refiner switch" in said(switch_at=0.8)
    assert "Refiner" not in write_infotext(painted, 0, "1")


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
    assert "Sigma noise" not in parameters(sampler="DPM++ 2M", sampler_options=SamplerOptions(eta=1.0, s_noise=1.1))


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


def test_skipped_guidance_is_told_where_there_is_guidance() -> None:
    options = SamplerOptions(s_min_uncond=2.5, s_min_uncond_all=True, skip_early_cond=0.2)

    def said(**fields: Any) -> dict[str, str]:
        keys = ("Skip Early CFG", "NGMS", "NGMS all steps")
        return {
            key: value for key, value in parameters(**{"sampler_options": options, **fields}).items() if key in keys
        }

    everything = {"Skip Early CFG": "0.2", "NGMS": "2.5", "NGMS all steps": "True"}
    assert said() == everything
    assert said(cfg_scale=1.0) == {}
    assert said(cfg_scale=1.0, prompt="a AND b") == said(cfg_scale=12.5, sampler="DDIM CFG++") == everything
    assert said(sampler_options=SamplerOptions(s_min_uncond_all=True)) == {}


def test_padding_is_told_where_it_has_an_effect() -> None:
    long = "fox " * 100

    def said(**fields: Any) -> list[str]:
        return [key for key in parameters(**fields) if key.startswith("Pad")]

    assert said(prompt=long, pad_conds=True) == ["Pad conds"]
    assert said(negative_prompt=long, pad_conds_v0=True, pad_conds=True) == ["Pad conds v0"]
    assert said(prompt="fox", pad_conds=True) == said(prompt=long) == []
    assert said(prompt=f"[fox:{long}:3]", pad_conds=True) == ["Pad conds"]
    assert said(prompt=long, negative_prompt=long, pad_conds=True) == []


def test_what_sdxl_was_told_is_told_of_sdxl_only() -> None:
    request = resolved(GenerationRequest(sdxl_crop_top=8, tiling=True))
    assert "crop" not in write_infotext(request, 0, "1")
    told = request.model_copy(update={"sdxl_crop_top": 8, "sdxl_crop_left": 16})
    text = write_infotext(told, 0, "1")
    assert "SDXL crop top: 8, SDXL crop left: 16, " in text
    assert "RNG: CPU, Tiling: True, " in text
    read = parse_infotext(text).request
    assert (read["sdxl_crop_top"], read["sdxl_crop_left"], read["tiling"]) == (8, 16, True)


def test_an_inpainting_checkpoint_tells_its_mask_weight_as_in_a1111() -> None:
    request = resolved(make_request({"prompt": "a fox", "seed": 1, "clip_skip": 2}))
    masked = request.model_copy(update={"model": request.model.model_copy(update={"inpaint": True})})
    assert ", Conditional mask weight: 1.0, Clip skip: 2" in write_infotext(masked, 0, "1")
    assert "Conditional mask weight" not in write_infotext(request, 0, "1")
    assert parse_infotext(write_infotext(masked, 0, "1")).notes == parse_infotext(write_infotext(request, 0, "1")).notes


def test_the_user_stands_last() -> None:
    request = resolved(make_request({"prompt": "a fox", "seed": 1}))
    named = request.model_copy(update={"options": RunOptions(user="Ada: painter")})
    assert write_infotext(named, 0, "1").endswith(', Version: Latent Studio 1, User: "Ada: painter"')
    assert "User" not in write_infotext(request, 0, "1")
    assert parse_infotext(write_infotext(named, 0, "1")).pairs["User"] == "Ada: painter"
