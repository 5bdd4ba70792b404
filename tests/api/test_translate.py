"""A1111's fields to ours, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from studio.api.a1111.bodies import Txt2ImgBody
from studio.api.a1111.translate import Context, Order
from studio.api.a1111.txt2img import txt2img_order
from studio.errors import InvalidRequest
from studio.schema.parts import HiresPass, Refiner, SamplerOptions, SeedResize, Variation
from studio.schema.request import GenerationRequest

DEFAULTS = GenerationRequest(model="sprout", vae="sharp", clip_skip=2, emphasis="No norm", rng="NV", steps=9, width=128)
API = {"sampler": "Euler", "schedule": "Automatic", "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512,
       "model": "sprout", "vae": "sharp", "clip_skip": 2, "emphasis": "No norm", "rng": "NV"}  # fmt: skip


def order(**fields: Any) -> Order:
    context = Context(DEFAULTS, lambda text: {"prompt": text, "steps": 3, "seed": 9}, 2)
    return txt2img_order(Txt2ImgBody.model_validate(fields), context)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, {}),
        ({"prompt": "a", "negative_prompt": "b", "seed": 7, "steps": 20, "cfg_scale": 5, "width": 640, "height": 448},
         {"prompt": "a", "negative_prompt": "b", "seed": 7, "steps": 20, "cfg_scale": 5.0, "width": 640, "height": 448}),
        ({"batch_size": 2, "n_iter": 3}, {"batch_size": 2, "batch_count": 3}),
        ({"prompt": None, "steps": None, "seed": None, "styles": None, "sampler_name": None, "scheduler": None}, {}),
        ({"styles": ["ink", "None", ""]}, {"styles": ("ink",)}),
        ({"sampler_name": "Euler a"}, {"sampler": "Euler a"}),
        ({"sampler_index": "Heun"}, {"sampler": "Heun"}),
        ({"sampler_name": "DDIM", "sampler_index": "Heun"}, {"sampler": "DDIM"}),
        ({"sampler_name": "k_euler_a", "scheduler": "karras"}, {"sampler": "k_euler_a", "schedule": "karras"}),
        ({"sampler_name": "DPM++ 2M Karras"}, {"sampler": "DPM++ 2M", "schedule": "Karras"}),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Automatic"}, {"sampler": "DPM++ 2M", "schedule": "Karras"}),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Exponential"}, {"sampler": "DPM++ 2M", "schedule": "Exponential"}),
        ({"sampler_name": "", "scheduler": ""}, {}),
        ({"eta": 0.5, "s_churn": 2, "s_tmin": 0.1, "s_tmax": 9, "s_noise": 1.1},
         {"sampler_options": SamplerOptions(eta=0.5, s_churn=2, s_tmin=0.1, s_tmax=9, s_noise=1.1)}),
        ({"override_settings": {"sd_model_checkpoint": "oak [x]", "sd_vae": "None", "CLIP_stop_at_last_layers": 1,
                                "eta_noise_seed_delta": 31337, "emphasis": "Original", "randn_source": "CPU"}},
         {"model": "oak [x]", "vae": "None", "clip_skip": 1, "emphasis": "Original", "rng": "CPU",
          "sampler_options": SamplerOptions(ensd=31337)}),
        ({"override_settings": {"sd_model_checkpoint": "", "sd_vae": None}}, {}),
        ({"override_settings": {"beta_dist_alpha": 0.5, "beta_dist_beta": 0.7}},
         {"sampler_options": SamplerOptions(beta_dist_alpha=0.5, beta_dist_beta=0.7)}),
        ({"sampler_name": "Euler a", "override_settings": {"eta_ancestral": 1.0, "eta_ddim": 0.0}},
         {"sampler": "Euler a", "sampler_options": SamplerOptions(eta=1.0)}),
        ({"sampler_name": "DDIM", "override_settings": {"eta_ancestral": 1.0, "eta_ddim": 0.2}},
         {"sampler": "DDIM", "sampler_options": SamplerOptions(eta=0.2)}),
        ({"sampler_name": "Euler a", "override_settings": {"eta_ddim": 0.2}}, {"sampler": "Euler a"}),
        ({"sampler_name": "Euler a", "eta": 0.3, "override_settings": {"eta_ancestral": 1.0}},
         {"sampler": "Euler a", "sampler_options": SamplerOptions(eta=0.3)}),
        ({"s_min_uncond": 3}, {"sampler_options": SamplerOptions(s_min_uncond=3)}),
        ({"override_settings": {"s_min_uncond": 2, "s_min_uncond_all": True, "skip_early_cond": 0.2}},
         {"sampler_options": SamplerOptions(s_min_uncond=2, s_min_uncond_all=True, skip_early_cond=0.2)}),
        ({"override_settings": {"use_old_scheduling": True, "sd_noise_schedule": "Zero Terminal SNR",
                                "prediction_type": "v_prediction"}},
         {"old_prompt_editing": True, "noise_schedule": "Zero Terminal SNR", "prediction_type": "v_prediction"}),
        ({"override_settings": {"use_downcasted_alpha_bar": True}}, {"downcast_alphas": True}),
        ({"override_settings": {"fp8_storage": "Enable", "cache_fp16_weight": True}},
         {"fp8_weight": "Enable", "cache_fp16_weight": True}),
        ({"override_settings": {"forge_additional_modules": ["/m/clip_l.safetensors", "C:\\m\\clip_g.safetensors", "sub/x"]}},
         {"text_encoders": ("clip_l.safetensors", "clip_g.safetensors", "sub/x")}),
        ({"override_settings": {"forge_additional_modules": []}}, {}),
        ({"enable_hr": True, "hr_additional_modules": ["clip_l.safetensors"]},
         {"hires": HiresPass(denoising_strength=0.75, vae="Automatic", text_encoders=("clip_l.safetensors",))}),
        ({"enable_hr": True, "hr_additional_modules": ["Use same choices"]}, {"hires": HiresPass(denoising_strength=0.75)}),
        ({"tiling": True}, {"tiling": True}),
        ({"tiling": None}, {}),
        ({"override_settings": {"sdxl_crop_top": 8, "sdxl_crop_left": 16}}, {"sdxl_crop_top": 8, "sdxl_crop_left": 16}),
        ({"override_settings": {"pad_cond_uncond": True, "pad_cond_uncond_v0": True}},
         {"pad_conds": True, "pad_conds_v0": True}),
        ({"override_settings": {"use_old_scheduling": False, "sd_noise_schedule": "Default"}}, {}),
        ({"subseed": 9, "subseed_strength": 0.3}, {"variation": Variation(seed=9, strength=0.3)}),
        ({"subseed_strength": 0.3}, {"variation": Variation(strength=0.3)}),
        ({"subseed": 9, "subseed_strength": 0}, {}),
        ({"seed_resize_from_w": 512, "seed_resize_from_h": 640}, {"seed_resize": SeedResize(width=512, height=640)}),
        ({"refiner_checkpoint": "oak", "refiner_switch_at": 0.7}, {"refiner": Refiner(checkpoint="oak", switch_at=0.7)}),
        ({"refiner_checkpoint": "oak"}, {"refiner": Refiner(checkpoint="oak", switch_at=0.0)}),
        ({"refiner_checkpoint": "oak", "refiner_switch_at": 1}, {}),
        ({"enable_hr": False, "hr_scale": 3, "denoising_strength": 0.4}, {}),
        ({"hr_scale": 3, "hr_upscaler": "Latent"}, {}),
        ({"enable_hr": True}, {"hires": HiresPass(denoising_strength=0.75)}),
        ({"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "hr_second_pass_steps": 5, "denoising_strength": 0.4,
          "hr_prompt": "a", "hr_negative_prompt": "b", "hr_cfg": 3, "hr_checkpoint_name": "oak [0123456789]"},
         {"hires": HiresPass(scale=1.5, upscaler="Lanczos", steps=5, denoising_strength=0.4, prompt="a", negative_prompt="b",
                             cfg_scale=3, checkpoint="oak [0123456789]")}),
        *(({"enable_hr": True, "hr_checkpoint_name": name}, {"hires": HiresPass(denoising_strength=0.75)})
          for name in ("Use same checkpoint", "use same", "None", "", " ", None)),
        ({"enable_hr": False, "hr_checkpoint_name": "oak"}, {}),
        ({"enable_hr": True, "hr_resize_x": 640, "hr_resize_y": -1, "hr_sampler_name": "Use same sampler",
          "hr_scheduler": "Use same scheduler"}, {"hires": HiresPass(width=640, denoising_strength=0.75)}),
        ({"enable_hr": True, "hr_sampler_name": "DPM++ 2M Karras"},
         {"hires": HiresPass(sampler="DPM++ 2M", schedule="Karras", denoising_strength=0.75)}),
        ({"enable_hr": True, "hr_sampler_name": "Euler a", "hr_scheduler": "beta",
          "override_settings": {"hires_fix_refiner_pass": "both passes"}},
         {"hires": HiresPass(sampler="Euler a", schedule="beta", refiner="both passes", denoising_strength=0.75)}),
        ({"refiner_switch_at": 0.7, "refiner_checkpoint": ""}, {}),
        ({"refiner_checkpoint": "oak", "refiner_switch_at": 0.5,
          "override_settings": {"refiner_switch_by_sample_steps": True}},
         {"refiner": Refiner(checkpoint="oak", switch_at=0.5, by_steps=True)}),
        ({"override_settings": {"refiner_switch_by_sample_steps": True}}, {}),
        ({"seed_resize_from_w": 512}, {}),
        ({"seed_resize_from_w": 512, "seed_resize_from_h": -1}, {}),
        ({"restore_faces": True}, {"face_restoration": "CodeFormer"}),
        ({"restore_faces": True, "override_settings": {"face_restoration_model": "GFPGAN", "code_former_weight": 0.2}},
         {"face_restoration": "GFPGAN", "code_former_weight": 0.2}),
        ({"override_settings": {"face_restoration": True}}, {"face_restoration": "CodeFormer"}),
        ({"override_settings": {"face_restoration": True}, "restore_faces": False}, {}),
        ({"override_settings": {"face_restoration_model": "GFPGAN"}}, {}),
        ({"infotext": "from the text"}, {"prompt": "from the text", "steps": 3, "seed": 9}),
        ({"infotext": "from the text", "prompt": "mine", "steps": 8}, {"prompt": "mine", "steps": 8, "seed": 9}),
        ({"enable_hr": False, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, "subseed": 5,
          "restore_faces": False, "tiling": False, "styles": [], "script_name": "None", "script_args": [],
          "refiner_checkpoint": "None", "seed_resize_from_w": 0, "firstphase_width": 0, "do_not_save_grid": True}, {}),
    ],
)  # fmt: skip
def test_a_body_means_a_request(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert order(**fields).request == GenerationRequest.model_validate({**API, **expected})


@pytest.mark.parametrize(
    "field, value",
    [("script_name", "Prompt matrix"), ("init_images", ["aGk="]), ("mask", "aGk="),
     ("firstphase_width", 64), ("disable_extra_networks", True)],
)  # fmt: skip
def test_what_is_not_built_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as caught:
        order(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "fields, theirs",
    [({"n_iter": 0}, "n_iter"), ({"width": 63}, "width"), ({"eta": 7}, "eta"), ({"subseed_strength": 2}, "subseed_strength"),
     ({"subseed": -2}, "subseed"), ({"seed_resize_from_w": 5, "seed_resize_from_h": 64}, "seed_resize_from_w"), ({"s_noise": -1}, "s_noise"),
     ({"refiner_checkpoint": "x", "refiner_switch_at": 1.1}, "refiner_switch_at"), ({"refiner_checkpoint": "x" * 301}, "refiner_checkpoint"),
     ({"enable_hr": True, "hr_checkpoint_name": "x" * 301}, "hr_checkpoint_name"),
     ({"override_settings": {"CLIP_stop_at_last_layers": 99}}, "override_settings.CLIP_stop_at_last_layers"),
     ({"override_settings": {"sigma_min": -1}}, "override_settings.sigma_min"), ({"cfg_scale": float("nan")}, "cfg_scale")],
)  # fmt: skip
def test_errors_speak_of_their_fields(fields: dict[str, Any], theirs: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        order(**fields)
    assert caught.value.field == theirs
    assert caught.value.message.startswith(f"{theirs} = ")


def test_what_changes_nothing_is_a_warning() -> None:
    found = order(hologram=1, alwayson_scripts={"ADetailer": {"args": []}}, override_settings={"lora_color": "red"})
    assert [warning.split(" ")[0] for warning in found.warnings] == ["hologram", "The", "override_settings.lora_color"]
    assert "'ADetailer'" in found.warnings[1]
    assert order(prompt="x", force_task_id="1", hr_scale=2.0).warnings == []


def test_faces_of_a_text_are_restored_unless_the_call_says_otherwise() -> None:
    def restorer(told: str, **fields: Any) -> str:
        context = Context(DEFAULTS, lambda _: {"face_restoration": told}, 2, face_restorer="GFPGAN")
        return txt2img_order(Txt2ImgBody(infotext="x", **fields), context).request.face_restoration

    assert restorer("CodeFormer") == "CodeFormer" and restorer("") == ""
    assert restorer("CodeFormer", restore_faces=False) == ""
    assert restorer("CodeFormer", restore_faces=True) == "CodeFormer" and restorer("", restore_faces=True) == "GFPGAN"
    assert restorer("CodeFormer", override_settings={"face_restoration_model": "GFPGAN"}) == "GFPGAN"


def test_saving_previews_and_settings_that_stay() -> None:
    assert order().options.save is False
    assert order(save_images=True).options.save is True
    assert order(save_images=True, do_not_save_samples=True).options.save is False
    assert order().options.preview_every == 2
    overrides = {"sd_model_checkpoint": "oak", "eta_ddim": 0.5}
    assert order(override_settings=overrides).persistent == {}
    overrides["face_restoration_model"] = "GFPGAN"
    kept = order(override_settings=overrides, override_settings_restore_afterwards=False)
    assert kept.persistent == {"sd_model_checkpoint": "oak", "face_restoration_model": "GFPGAN"}
    picture = {"use_old_scheduling": True, "sd_noise_schedule": "Zero Terminal SNR"}
    assert order(override_settings=picture, override_settings_restore_afterwards=False).persistent == {}


def test_what_is_given_goes_over_the_text() -> None:
    text = {"seed": 9, "variation": {"seed": 5, "strength": 0.5}, "seed_resize": {"width": 64, "height": 64},
            "refiner": {"checkpoint": "oak", "switch_at": 0.6, "by_steps": True}}  # fmt: skip

    def request(**fields: Any) -> GenerationRequest:
        body = Txt2ImgBody.model_validate({"infotext": "x", **fields})
        return txt2img_order(body, Context(DEFAULTS, lambda _: text, 1)).request

    assert request().variation == Variation(seed=5, strength=0.5)
    assert request().refiner == Refiner(checkpoint="oak", switch_at=0.6, by_steps=True)
    assert request(refiner_checkpoint="elm").refiner == Refiner(checkpoint="elm", switch_at=0.6, by_steps=True)
    assert request(refiner_checkpoint="None").refiner is None
    assert request(subseed=6).variation == Variation(seed=6, strength=0.5)
    assert request(subseed_strength=0).variation is None
    assert request(seed_resize_from_h=-1).seed_resize is None
    assert request(seed_resize_from_h=128).seed_resize == SeedResize(width=64, height=128)


def test_a_branch_fills_what_is_not_given_from_its_origin() -> None:
    texts: list[str] = []

    def read(text: str) -> dict[str, Any]:
        texts.append(text)
        return {"prompt": "a fox", "steps": 9, "seed": 4, "width": 128, "branch": {"step": 1, "origin": "older"}}

    body = Txt2ImgBody(prompt="an owl", branch={"step": 3, "origin": "the text"})
    request = txt2img_order(body, Context(GenerationRequest(), read, 0)).request
    assert texts == ["the text"]
    assert (request.prompt, request.steps, request.seed, request.width) == ("an owl", 9, 4, 128)
    assert request.branch is not None and (request.branch.step, request.branch.origin) == (3, "the text")
    with pytest.raises(InvalidRequest, match=r"branch\.step = 0"):
        txt2img_order(Txt2ImgBody(branch={"step": 0, "origin": "x"}), Context(GenerationRequest(), lambda text: {}, 0))
