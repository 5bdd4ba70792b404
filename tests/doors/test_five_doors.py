"""The page's form, native REST, A1111's REST, the command line and a picture's infotext give equal requests."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file

from studio.api.server import create_app
from studio.app import Studio
from studio.building import build
from studio.cli import build_parser
from studio.cli.generate import branch_from, request_from
from studio.engine.fake import FakeEngine
from studio.infotext import encode_png, with_plot, write_infotext
from studio.paths import Paths
from studio.resolve import fixed
from studio.schema.parts import HiresPass
from studio.schema.plot import Plot
from studio.schema.request import GenerationRequest, RunOptions, make_request
from studio.schema.upscale import SdUpscale
from studio.settings import Settings
from studio.ui.form import Form, flat
from studio.ui.looks import LOOKS
from studio.ui.mount import in_own_loop
from tests.engine.faces.made import made_file
from tests.tiny_models import tiny_components, tiny_file, tiny_vae_file
from tests.vector_files import vector_path

PICTURE, HOLE = Image.new("RGB", (96, 64), (200, 90, 20)), Image.new("L", (96, 64), 255)
KEPT, KEPT_HOLE = "aeb2c1a36ab087a0b601222b6dca4d04", "07d9b5cd184264b6e0ac514daa0c8bf8"
"""The names that these are kept under: the studio of the tests keeps them."""

CASES: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "a red fox on a beach", "seed": 7},
    "empty prompt": {"prompt": "", "seed": 0},
    "weights, lines, quotes": {
        "prompt": 'a (red:1.2) [fox],\nBREAK "at" sea: 3',
        "negative_prompt": "blurry,\nugly: 2",
        "seed": 1,
    },
    "non-Latin": {"prompt": "狐狸 🦊 на пляже", "negative_prompt": "ü", "seed": 4294967295},
    "sampler without own schedule": {"sampler": "Euler a", "schedule": "Automatic", "seed": 3, "steps": 5},
    "sampler with chosen schedule": {"sampler": "Euler", "schedule": "Karras", "seed": 3, "cfg_scale": 4.5},
    "sampler's own schedule": {"sampler": "DPM++ 2M SDE", "schedule": "Exponential", "seed": 3},
    "sizes and batches": {"width": 192, "height": 96, "batch_count": 2, "batch_size": 2, "seed": 5},
    "sampler options": {
        "sampler": "Euler",
        "seed": 6,
        "sampler_options": {"s_churn": 2.0, "s_tmin": 0.5, "s_noise": 1.1},
    },
    "eta": {"sampler": "Euler a", "seed": 6, "sampler_options": {"eta": 0.5}},
    "skipped guidance": {
        "seed": 6,
        "sampler_options": {"s_min_uncond": 2.5, "s_min_uncond_all": True, "skip_early_cond": 0.15},
    },
    "a cache of deep features": {"deep_cache": 3, "seed": 21},
    "merged tokens": {"token_merging_ratio": 0.5, "seed": 22},
    "merged tokens in the second pass": {
        "seed": 22,
        "width": 64,
        "height": 64,
        "token_merging_ratio": 0.2,
        "hires": {"scale": 1.5, "token_merging_ratio": 0.6},
    },
    "merged tokens in both passes alike": {
        "seed": 22,
        "width": 64,
        "height": 64,
        "token_merging_ratio": 0.25,
        "hires": {"scale": 1.5, "token_merging_ratio": 0.25},
    },
    "extra noise in the second pass": {
        "seed": 22,
        "width": 64,
        "height": 64,
        "hires": {"scale": 1.5, "extra_noise": 0.25},
    },
    "weights in eight bits": {"seed": 26, "fp8_weight": "Enable", "cache_fp16_weight": True},
    "weights in eight bits where the setting concerns none": {
        "seed": 26,
        "fp8_weight": "Enable for SDXL",
        "cache_fp16_weight": True,
    },
    "weights in eight bits of SDXL": {"model": "grand", "seed": 26, "fp8_weight": "Enable for SDXL"},
    "a cache for weights that are not in eight bits": {"seed": 26, "cache_fp16_weight": True},
    "a tiny decoder": {"vae_decoder": "TAESD", "seed": 23},
    "a tiny encoder where nothing is encoded": {"vae_encoder": "TAESD", "seed": 23},
    "both halves of SDXL's tiny autoencoder": {
        "model": "grand",
        "seed": 23,
        "width": 64,
        "height": 64,
        "vae_encoder": "TAESD",
        "vae_decoder": "TAESD",
        "hires": {"upscaler": "Lanczos"},
    },
    "another text encoder": {"model": "finisher", "seed": 27, "text_encoders": ("tuned_l",)},
    "both text encoders of SDXL": {"model": "grand", "seed": 27, "text_encoders": ("xl/tuned_g", "tuned_l")},
    "other modules in the second pass": {
        "model": "finisher",
        "seed": 27,
        "width": 64,
        "height": 64,
        "text_encoders": ("tuned_l",),
        "hires": {"vae": "sharp", "text_encoders": ("Built-in",), "upscaler": "Lanczos"},
    },
    "another text encoder in the second pass": {
        "model": "finisher",
        "seed": 27,
        "width": 64,
        "height": 64,
        "hires": {"text_encoders": ("tuned_l",), "vae": "Automatic"},
    },
    "a model enlarges": {
        "seed": 24,
        "width": 64,
        "height": 64,
        "hires": {"upscaler": "R-ESRGAN 2x+", "scale": 1.5, "denoising_strength": 0.3},
    },
    "restored faces": {"face_restoration": "gfpgan", "seed": 24},
    "a weight that does not act": {"face_restoration": "GFPGAN", "code_former_weight": 0.2, "seed": 24},
    "a weight without face restoration": {"code_former_weight": 0.2, "seed": 24},
    "a name that means no restorer": {"face_restoration": "None", "seed": 24},
    "CodeFormer and its weight": {"face_restoration": "CodeFormer", "code_former_weight": 0.35, "seed": 24},
    "a restorer by its file": {"face_restoration": "GFPGANv1.3.safetensors", "seed": 24},
    "a plot of restorers": {
        "seed": 24,
        "plot": {"x_type": "Face restore", "x_values": "None, CodeFormer, GFPGANv1.3"},
    },
    "clip skip and noise source": {"clip_skip": 2, "rng": "NV", "seed": 8},
    "variation": {"seed": 11, "variation": {"seed": 12, "strength": 0.25}, "batch_size": 2, "batch_count": 2},
    "variation of no strength": {"seed": 11, "variation": {"seed": 12, "strength": 0}, "batch_size": 2},
    "variation that wraps around": {
        "seed": 4294967295,
        "variation": {"seed": 4294967295, "strength": 1},
        "batch_size": 2,
    },
    "seed resize": {"seed": 13, "seed_resize": {"width": 517, "height": 640}, "width": 768, "height": 768},
    "seed resize with no height": {"seed": 13, "seed_resize": {"width": 512, "height": 0}},
    "variation and seed resize": {
        "seed": 14,
        "variation": {"seed": 0, "strength": 0.05},
        "seed_resize": {"width": 64, "height": 2048},
    },
    "refiner": {"seed": 17, "refiner": {"checkpoint": "finisher", "switch_at": 0.6}},
    "refiner by steps": {
        "seed": 17,
        "refiner": {"checkpoint": "finisher.safetensors", "switch_at": 0.25, "by_steps": True},
    },
    "refiner that never begins": {"seed": 17, "refiner": {"checkpoint": "finisher", "switch_at": 1.0}},
    "refiner that is the checkpoint": {"seed": 17, "refiner": {"checkpoint": "sprout-v1", "switch_at": 0.5}},
    "refiner without a name": {"seed": 17, "refiner": {"checkpoint": "", "switch_at": 0.5}},
    "hires with its defaults": {"prompt": "a fox", "seed": 18, "width": 64, "height": 96, "hires": {}},
    "hires by size, all its own": {
        "prompt": "a [fox:owl:1.5], red",
        "negative_prompt": "blurry",
        "seed": 18,
        "width": 128,
        "height": 128,
        "sampler": "Euler",
        "steps": 6,
        "hires": {
            "width": 250,
            "height": 192,
            "scale": 3.0,
            "upscaler": "lanczos",
            "steps": 6,
            "denoising_strength": 0.4,
            "sampler": "DPM++ 2M",
            "schedule": "Exponential",
            "cfg_scale": 4.5,
            "prompt": 'a "big" fox, (red:1.2)',
            "negative_prompt": "noise: 2",
        },
    },
    "hires that says what is so anyway": {
        "prompt": "a fox",
        "seed": 18,
        "width": 64,
        "height": 64,
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "cfg_scale": 5.0,
        "hires": {"scale": 1.5, "sampler": "DPM++ 2M", "schedule": "Automatic", "cfg_scale": 5.0, "prompt": "a fox"},
    },
    "hires with a schedule of the first pass": {
        "seed": 18,
        "width": 64,
        "height": 64,
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "hires": {"sampler": "DPM++ 2M SDE", "upscaler": "None", "denoising_strength": 0.0},
    },
    "hires with styles and drawn words": {
        "prompt": "a fox",
        "seed": 2,
        "width": 64,
        "height": 64,
        "styles": ["ink"],
        "hires": {"prompt": "a {red|blue} __colour__ fox # big", "width": 128},
    },
    "hires with another checkpoint": {
        "prompt": "a fox",
        "seed": 18,
        "width": 64,
        "height": 64,
        "hires": {"checkpoint": "finisher.safetensors", "upscaler": "Lanczos", "scale": 1.5},
    },
    "hires with a checkpoint of another family": {
        "seed": 18,
        "width": 64,
        "height": 64,
        "sdxl_crop_top": 8,
        "refiner": {"checkpoint": "finisher", "switch_at": 0.5},
        "hires": {"checkpoint": "grand", "upscaler": "None", "refiner": "first pass"},
    },
    "hires with a checkpoint and a refiner that is the first one": {
        "seed": 18,
        "width": 64,
        "height": 64,
        "refiner": {"checkpoint": "sprout-v1", "switch_at": 0.5},
        "hires": {"checkpoint": "finisher", "upscaler": "None", "refiner": "both passes"},
    },
    "hires with the same checkpoint": {
        "seed": 18,
        "width": 64,
        "height": 64,
        "hires": {"checkpoint": "Use same checkpoint", "scale": 1.5},
    },
    "hires with another checkpoint that has nothing to paint": {
        "seed": 18,
        "width": 64,
        "height": 64,
        "hires": {"checkpoint": "grand", "denoising_strength": 0.0},
    },
    "hires that neither enlarges nor paints": {"seed": 18, "hires": {"scale": 1.0, "denoising_strength": 0.0}},
    "hires of the same size that does not paint": {
        "seed": 18,
        "width": 520,
        "height": 512,
        "hires": {"height": 512, "denoising_strength": 0.0},
    },
    "refiner in both passes": {
        "seed": 17,
        "width": 64,
        "height": 64,
        "refiner": {"checkpoint": "finisher", "switch_at": 0.6},
        "hires": {"refiner": "both passes", "scale": 1.5},
    },
    "refiner in the second pass by steps": {
        "seed": 17,
        "width": 64,
        "height": 64,
        "refiner": {"checkpoint": "finisher", "switch_at": 0.5, "by_steps": True},
        "hires": {"steps": 4, "scale": 1.5},
    },
    "hires with a refiner's pass but no refiner": {"seed": 17, "hires": {"refiner": "first pass", "scale": 1.25}},
    "old prompt editing": {"prompt": "a [red:(blue:1.2):1.0] fox", "old_prompt_editing": True, "seed": 15},
    "padded prompts": {"prompt": "a fox, " * 40, "pad_conds": True, "seed": 15},
    "prompts padded the old way": {"negative_prompt": "a fox, " * 40, "pad_conds_v0": True, "seed": 15},
    "noise levels in half precision": {"downcast_alphas": True, "seed": 15},
    "tiling": {"tiling": True, "seed": 15},
    "what SDXL is told was cut off": {"model": "grand", "sdxl_crop_top": 8, "sdxl_crop_left": 100, "seed": 15},
    "what the checkpoint predicts": {"prediction_type": "v_prediction", "seed": 16},
    "a schedule that ends in noise": {"noise_schedule": "Zero Terminal SNR", "prediction_type": "epsilon", "seed": 16},
    "comments": {"prompt": "a fox\n# at night?\nin snow # deep", "seed": 2},
    "styles": {"prompt": "a fox", "negative_prompt": "blurry", "styles": ["ink", "frame, wide"], "seed": 2},
    "wildcards and choices": {"prompt": "a __colour__ {2$$fox|owl|hen}", "negative_prompt": "{x|y}", "seed": 11},
    "what looks like a choice": {"prompt": "a \\{b|c} and \\__colour__ {prompt}", "seed": 2},
    "branch": {
        "prompt": "a cat",
        "seed": 7,
        "steps": 9,
        "cfg_scale": 3.5,
        "sampler": "Euler a",
        "branch": {
            "step": 4,
            "origin": "a red fox\nNegative prompt: blurry\nSteps: 6, Sampler: Euler, Seed: 7, Size: 128x128, RNG: CPU",
        },
        "width": 128,
        "height": 128,
    },
    "branch of nothing": {"seed": 7, "branch": {"step": 4, "origin": " "}},
    "a picture to begin with": {"prompt": "a fox", "seed": 24, "width": 96, "height": 64, "source": {"image": KEPT}},
    "a picture to begin with, all its own": {
        "seed": 24,
        "width": 64,
        "height": 64,
        "steps": 6,
        "sampler": "Euler",
        "source": {
            "image": KEPT,
            "denoising_strength": 0.4,
            "resize_mode": "Crop and resize",
            "exact_steps": True,
            "noise_multiplier": 0.9,
            "extra_noise": 0.1,
        },
    },
    "a picture whose latents are enlarged": {
        "seed": 24,
        "width": 128,
        "height": 128,
        "batch_size": 2,
        "token_merging_ratio": 0.25,
        "vae_encoder": "TAESD",
        "source": {"image": KEPT, "denoising_strength": 1.0, "resize_mode": "Just resize (latent upscale)"},
    },
    "a picture that is hardly painted": {
        "seed": 24,
        "width": 64,
        "height": 64,
        "source": {"image": KEPT, "denoising_strength": 0.0, "resize_mode": "Resize and fill"},
    },
    "a picture in tiles": {
        "prompt": "a fox",
        "seed": 24,
        "width": 64,
        "height": 64,
        "batch_count": 2,
        "batch_size": 2,
        "source": {"image": KEPT, "denoising_strength": 0.3},
        "sd_upscale": {"upscaler": "R-ESRGAN 2x+", "scale_factor": 1.5, "overlap": 32},
    },
    "a picture in tiles as large as it is": {
        "seed": 24,
        "width": 192,
        "height": 128,
        "source": {"image": KEPT},
        "sd_upscale": {"upscaler": "none", "scale_factor": 3, "overlap": 0},
    },
    "no picture to begin with": {"seed": 24, "source": {"denoising_strength": 0.4}, "mask": {"blur": 8}},
    "a masked part": {
        "seed": 25,
        "width": 96,
        "height": 64,
        "source": {"image": KEPT},
        "mask": {"image": KEPT_HOLE},
    },
    "a masked part, all its own": {
        "seed": 25,
        "width": 64,
        "height": 64,
        "source": {"image": KEPT, "denoising_strength": 0.6},
        "mask": {
            "image": KEPT_HOLE,
            "blur": 8,
            "inverted": True,
            "content": "latent noise",
            "area": "Only masked",
            "padding": 16,
            "rounding": False,
        },
    },
    "a masked part with what does not act on it": {
        "seed": 25,
        "width": 64,
        "height": 64,
        "source": {"image": KEPT, "resize_mode": "Resize and fill"},
        "mask": {"image": KEPT_HOLE, "area": "Only masked", "conditioning_weight": 0.5},
    },
    "a masked picture with what does not act on it": {
        "seed": 25,
        "width": 64,
        "height": 64,
        "source": {"image": KEPT, "resize_mode": "Just resize (latent upscale)"},
        "mask": {"image": KEPT_HOLE, "padding": 5},
    },
    "a masked part without blur": {
        "seed": 25,
        "width": 64,
        "height": 64,
        "source": {"image": KEPT},
        "mask": {"image": KEPT_HOLE, "blur": 0, "content": "fill", "area": "Only masked", "padding": 0},
    },
    "a plot": {
        "prompt": "a fox",
        "seed": 26,
        "cfg_scale": 5.0,
        "sampler": "Euler",
        "plot": {"x_type": "CFG Scale", "x_values": "5-9 (+2)", "y_type": "Sampler", "y_values": "Euler, Heun"},
    },
    "a plot, all its own": {
        "prompt": 'a red fox, big, and a "cat"',
        "seed": 26,
        "width": 64,
        "height": 64,
        "plot": {
            "x_type": "Prompt S/R",
            "x_values": '"red fox, big", "blue ""fox"": small", 狐狸',
            "y_type": "Seed",
            "y_values": "26, 27",
            "z_type": "Size",
            "z_values": "64x64, 96 x 64",
            "legend": False,
            "margin": 8,
            "random_seeds": True,
        },
    },
    "a plot of nothing": {"seed": 26, "plot": {"x_values": "1, 2", "margin": 5}},
    "a plot of second passes": {
        "seed": 26,
        "width": 64,
        "height": 64,
        "hires": {"scale": 1.5, "upscaler": "Lanczos"},
        "plot": {"z_type": "Hires upscaler", "z_values": "Lanczos, Latent (nearest-exact)"},
    },
    "a plot from a picture": {
        "seed": 26,
        "width": 96,
        "height": 64,
        "source": {"image": KEPT, "denoising_strength": 0.4},
        "mask": {"image": KEPT_HOLE, "area": "Only masked"},
        "plot": {"y_type": "Denoising", "y_values": "0.4-0.8 [3]"},
    },
    "a hypernetwork": {"seed": 27, "hypernetwork": "ink.safetensors", "hypernetwork_strength": 0.4},
    "a hypernetwork of no strength": {"seed": 27, "hypernetwork": "ink", "hypernetwork_strength": 0.0},
    "a hypernetwork by a tag and by a field": {
        "prompt": "a fox <hypernet:ink:0.5>",
        "seed": 27,
        "hypernetwork": "ink",
    },
    "a strength of no hypernetwork": {"seed": 27, "hypernetwork": "None", "hypernetwork_strength": 0.3},
    "no weights rescaled": {"prompt": "(fox:1.3)", "emphasis": "No norm", "seed": 9},
}
VARIATION = {"subseed": "seed", "subseed_strength": "strength"}
RESIZE = {"seed_resize_from_w": "width", "seed_resize_from_h": "height"}
REFINER = {"refiner_checkpoint": "checkpoint", "refiner_switch_at": "switch_at"}
HIRES = {
    "hr_scale": "scale",
    "hr_resize_x": "width",
    "hr_resize_y": "height",
    "hr_upscaler": "upscaler",
    "hr_second_pass_steps": "steps",
    "denoising_strength": "denoising_strength",
    "hr_sampler_name": "sampler",
    "hr_scheduler": "schedule",
    "hr_cfg": "cfg_scale",
    "hr_checkpoint_name": "checkpoint",
    "hr_prompt": "prompt",
    "hr_negative_prompt": "negative_prompt",
}
HIRES_SETTINGS = {
    "hires_fix_refiner_pass": "refiner",
    "token_merging_ratio_hr": "token_merging_ratio",
    "img2img_extra_noise": "extra_noise",
}
SOURCE = {
    "denoising_strength": "denoising_strength",
    "resize_mode": "resize_mode",
    "image_cfg_scale": "image_cfg_scale",
    "initial_noise_multiplier": "noise_multiplier",
}
SOURCE_SETTINGS = {"img2img_fix_steps": "exact_steps", "img2img_extra_noise": "extra_noise"}
MASK = {
    "mask_blur": "blur",
    "mask_round": "rounding",
    "inpainting_fill": "content",
    "inpaint_full_res": "area",
    "inpaint_full_res_padding": "padding",
    "inpainting_mask_invert": "inverted",
}
MASK_SETTINGS = {"inpainting_mask_weight": "conditioning_weight"}
NUMBERS = {
    "resize_mode": ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"],
    "inpainting_fill": ["fill", "original", "latent noise", "latent nothing"],
    "inpaint_full_res": ["Whole picture", "Only masked"],
}
"""What A1111 numbers."""
PARTS = {
    "sampler_options": "",
    "variation": "variation-",
    "seed_resize": "seed-resize-",
    "refiner": "refiner-",
    "hires": "hires-",
    "source": "source-",
    "mask": "mask-",
    "sd_upscale": "sd-upscale-",
    "plot": "plot-",
}
"""What stands before the flags of a part's fields."""
BATCHES = ("batch_count", "batch_size")
"""Not in the infotext of one picture, as in A1111."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "styles.csv").write_text('name,prompt,negative_prompt\nink,ink {prompt},photo\n"frame, wide",framed,\n')
    (folder / "checkpoints").mkdir()
    shutil.copy(tiny_file("sd1"), folder / "checkpoints" / "finisher.safetensors")
    shutil.copy(tiny_file("sdxl"), folder / "checkpoints" / "grand.safetensors")
    (folder / "checkpoints" / "vae").mkdir()
    shutil.copy(tiny_vae_file("sd1"), folder / "checkpoints" / "vae" / "sharp.safetensors")
    for name, part in (("tuned_l", "text_encoder"), ("xl/tuned_g", "text_encoder_2")):
        path = folder / "text_encoders" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tiny_components("sdxl")[part].state_dict(), path)
    (folder / "vae_approx").mkdir()
    for name in ("taesd_decoder", "taesd_encoder", "taesdxl"):
        (folder / "vae_approx" / f"{name}.safetensors").touch()
    for network, name in (
        ("GFPGAN", "GFPGANv1.3"),
        ("GFPGAN", "GFPGANv1.4"),
        ("CodeFormer", "codeformer"),
        ("RetinaFace", "detection_Resnet50_Final"),
    ):
        made_file(folder / "face_restoration", network, name)
    (folder / "hypernetworks").mkdir()
    network = {f"32.{half}.linear.0.weight": torch.ones(32, 32) for half in "kv"}
    save_file(network, folder / "hypernetworks" / "ink.safetensors")
    (folder / "upscalers" / "real").mkdir(parents=True)
    shutil.copy(vector_path("upscalers/new-2x.safetensors"), folder / "upscalers/real/RealESRGAN_x2plus.safetensors")
    (folder / "wildcards").mkdir()
    (folder / "wildcards" / "colour.txt").write_text("red\nblue\n")
    built = build(Settings(), Paths(folder), engine=FakeEngine())
    built.start()
    assert built.library.init_images.keep(encode_png(PICTURE, "")).name == KEPT
    assert built.library.init_images.keep_mask(encode_png(HOLE, "")).name == KEPT_HOLE
    yield built
    built.close()


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1") as client:
        yield client


def settled(studio: Studio, request: GenerationRequest) -> GenerationRequest:
    return fixed(request, studio.resolve(request))


def build_form() -> Form:
    with gr.Blocks():
        form = Form()
        for name in LOOKS:
            form.place(name)
    return form


def through_form(studio: Studio, request: GenerationRequest) -> GenerationRequest:
    form = in_own_loop(build_form)
    values = flat(request.model_dump())
    return settled(studio, form.read({form.controls[name]: value for name, value in values.items()}))


def through_native(studio: Studio, client: TestClient, request: GenerationRequest) -> GenerationRequest:
    answer = client.post("/studio/v1/generate", json=request.model_dump(mode="json"))
    assert answer.status_code < 300, answer.text
    return studio.queue.job(answer.json()["id"]).request


def through_a1111(studio: Studio, client: TestClient, request: GenerationRequest) -> GenerationRequest:
    options = request.sampler_options
    body = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "styles": list(request.styles),
        "seed": request.seed,
        "sampler_name": request.sampler,
        "scheduler": request.schedule,
        "n_iter": request.batch_count,
        "batch_size": request.batch_size,
        "steps": request.steps,
        "cfg_scale": request.cfg_scale,
        "width": request.width,
        "height": request.height,
        "eta": options.eta,
        "s_churn": options.s_churn,
        "s_tmin": options.s_tmin,
        "s_tmax": options.s_tmax,
        "s_noise": options.s_noise,
        "tiling": request.tiling,
        "restore_faces": bool(request.face_restoration),
        "s_min_uncond": options.s_min_uncond,
        **{theirs: getattr(request.variation, ours) for theirs, ours in VARIATION.items() if request.variation},
        "branch": request.branch and request.branch.model_dump(),
        **{theirs: getattr(request.seed_resize, ours) for theirs, ours in RESIZE.items() if request.seed_resize},
        **{theirs: getattr(request.refiner, ours) for theirs, ours in REFINER.items() if request.refiner},
        "enable_hr": request.hires is not None,
        "hr_additional_modules": modules(request.hires) if request.hires else None,
        **{theirs: getattr(request.hires, ours) for theirs, ours in HIRES.items() if request.hires},
        **pictures(studio, request),
        **(script(request.plot) if request.plot else {}),
        **(tiles(request.sd_upscale) if request.sd_upscale else {}),
        "override_settings": {
            **{theirs: getattr(request.source, ours) for theirs, ours in SOURCE_SETTINGS.items() if request.source},
            **{theirs: getattr(request.mask, ours) for theirs, ours in MASK_SETTINGS.items() if request.mask},
            **{theirs: getattr(request.hires, ours) for theirs, ours in HIRES_SETTINGS.items() if request.hires},
            "refiner_switch_by_sample_steps": bool(request.refiner and request.refiner.by_steps),
            "s_min_uncond_all": options.s_min_uncond_all,
            "skip_early_cond": options.skip_early_cond,
            "sd_model_checkpoint": request.model,
            "sdxl_crop_top": request.sdxl_crop_top,
            "sdxl_crop_left": request.sdxl_crop_left,
            "CLIP_stop_at_last_layers": request.clip_skip,
            "randn_source": request.rng,
            "emphasis": request.emphasis,
            "use_old_scheduling": request.old_prompt_editing,
            "pad_cond_uncond": request.pad_conds,
            "pad_cond_uncond_v0": request.pad_conds_v0,
            "sd_noise_schedule": request.noise_schedule,
            "use_downcasted_alpha_bar": request.downcast_alphas,
            "prediction_type": request.prediction_type,
            "sd_vae_encode_method": request.vae_encoder,
            "sd_vae_decode_method": request.vae_decoder,
            "face_restoration_model": request.face_restoration,
            "code_former_weight": request.code_former_weight,
            "deep_cache": request.deep_cache,
            "fp8_storage": request.fp8_weight,
            "forge_additional_modules": list(request.text_encoders),
            "cache_fp16_weight": request.cache_fp16_weight,
            "token_merging_ratio": request.token_merging_ratio,
            "sd_hypernetwork": request.hypernetwork or "None",
            "sd_hypernetwork_strength": request.hypernetwork_strength,
        },
    }
    answer = client.post(f"/sdapi/v1/{'img2img' if request.source else 'txt2img'}", json=body)
    assert answer.status_code == 200, answer.text
    return studio.queue.jobs(limit=1)[0].request


def modules(part: HiresPass) -> list[str]:
    """Forge's list of the second pass's text encoders and VAE: all that are not its checkpoint's own."""
    named = [*part.text_encoders, *([f"{part.vae}.safetensors"] if part.vae not in ("", "Automatic") else [])]
    return named or ["Use same choices"]


def script(plot: Plot) -> dict[str, Any]:
    """A1111's call of its script, with every argument that it has."""
    arguments: list[Any] = []
    for axis in "xyz":
        arguments += [getattr(plot, f"{axis}_type"), getattr(plot, f"{axis}_values"), []]
    vary = [False] * 3
    arguments += [plot.legend, True, False, plot.random_seeds, *vary, plot.margin, True]
    return {"script_name": "x/y/z plot", "script_args": arguments}


def tiles(part: SdUpscale) -> dict[str, Any]:
    """A1111's call of its script SD upscale."""
    return {"script_name": "SD upscale", "script_args": [None, part.overlap, part.upscaler, part.scale_factor]}


def pictures(studio: Studio, request: GenerationRequest) -> dict[str, Any]:
    """A1111's fields of the picture that `request` begins with, and of its mask."""
    body: dict[str, Any] = {}
    for part, names, field in ((request.source, SOURCE, "init_images"), (request.mask, MASK, "mask")):
        if part is not None:
            values = {theirs: getattr(part, ours) for theirs, ours in names.items()}
            body |= {key: NUMBERS[key].index(value) if key in NUMBERS else value for key, value in values.items()}
            text = base64.b64encode(Path(studio.library.init_image(part.image).path).read_bytes()).decode()
            body[field] = [text] if field == "init_images" else text
    return body


def through_command_line(studio: Studio, request: GenerationRequest) -> GenerationRequest:
    words = ["generate", f"--negative-prompt={request.negative_prompt}"]
    for name in GenerationRequest.model_fields:
        value = getattr(request, name)
        if name not in ("prompt", "negative_prompt", "model", "styles", "text_encoders", "branch", *PARTS):
            flag = f"--{name.replace('_', '-')}"
            words += [flag] * value if isinstance(value, bool) else [f"{flag}={value}"]
    for part, prefix in PARTS.items():
        fields = getattr(request, part).model_dump(exclude_defaults=True) if getattr(request, part) else {}
        for name, value in fields.items():
            flag = f"{prefix}{name.replace('_', '-')}"
            value = studio.library.init_image(value).path if name == "image" else value
            if isinstance(value, tuple):
                words += [f"--{flag}={each}" for each in value]
                continue
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}={value}"]
    words += ["--hires"] if request.hires else []
    words += [f"--model={request.model}"] if request.model else []
    words += [f"--styles={name}" for name in request.styles]
    words += [f"--text-encoders={name}" for name in request.text_encoders]
    if request.branch:
        file = studio.paths.root / "origin.txt"
        file.write_text(request.branch.origin, encoding="utf-8")
        words += [f"--branch-origin={file}", f"--branch-step={request.branch.step}"]
    arguments = build_parser(lambda arguments: 0).parse_args([*words, "--", request.prompt])
    defaults = studio.default_request(branch=branch_from(arguments, studio))
    return settled(studio, request_from(arguments, defaults, studio.library.init_images))


def through_infotext(studio: Studio, request: GenerationRequest) -> GenerationRequest:
    resolved = studio.resolve(request, RunOptions())
    text = write_infotext(resolved, 0, studio.version)
    text = with_plot(text, resolved.plot) if resolved.plot else text
    read = studio.read_infotext(text).request
    return settled(studio, make_request({**studio.default_request().model_dump(), **read}))


@pytest.mark.parametrize("case", CASES)
def test_five_doors_one_request(studio: Studio, client: TestClient, case: str) -> None:
    request = make_request({**studio.default_request().model_dump(), **CASES[case]})
    wanted = settled(studio, request)
    assert through_form(studio, request) == wanted
    assert through_native(studio, client, request) == wanted
    assert through_a1111(studio, client, request) == wanted
    assert through_command_line(studio, request) == wanted
    single = wanted.model_copy(update=dict.fromkeys(BATCHES, 1))
    assert through_infotext(studio, request).model_copy(update=dict.fromkeys(BATCHES, 1)) == single


def test_every_field_of_a_request_is_in_some_case() -> None:
    named = {name for case in CASES.values() for name in case}
    assert named | {"model", "vae"} == set(GenerationRequest.model_fields)
