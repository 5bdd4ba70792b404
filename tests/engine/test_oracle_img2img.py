"""diffusers' own img2img and inpainting pipelines as the oracle: the same picture within 2 of 255 of the same weights, picture and noise.

A1111 runs one step more than diffusers for the same strength (5 of 8 at 0.5, where diffusers runs 4), so the oracle is asked for more.
Both take the mode of the VAE's distribution here; by themselves diffusers and A1111 draw from it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.canvas import prepare
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedVae
from studio.engine.passes import DenoisingPass
from studio.engine.runner import DiffusersEngine
from studio.engine.saving import Saving
from studio.engine.source import source_latents
from studio.library.init_images import InitImages
from studio.schema.resolved import SourcePlan
from studio.schema.source import Source
from tests.engine.samples import resolved_request
from tests.engine.test_canvas import PICTURE
from tests.engine.test_oracle import painted, tokenizer
from tests.library.test_init_images import file_of
from tests.tiny_models import tiny_components, tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")
STEPS, STRENGTH, THEIRS = 8, 0.5, 5 / 8
SMALL = PICTURE.resize((64, 64), Image.Resampling.LANCZOS)


def pipeline_of(kind: str, family: str) -> Any:
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="linspace",
        steps_offset=1,
    )
    made = getattr(diffusers, kind)(
        **tiny_components(family),
        tokenizer=tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def codes(pipeline: Any, sample: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = pipeline.vae.encode(sample).latent_dist.mode() * pipeline.vae.config.scaling_factor
    return found


def source(folder: Path) -> SourcePlan:
    image = InitImages(folder, folder).keep(file_of(PICTURE))
    return SourcePlan(image=image, **Source(denoising_strength=STRENGTH).model_dump(exclude={"image", "extra_noise"}))


def asked(pipeline: Any, **more: Any) -> np.ndarray[Any, Any]:
    sample = torch.from_numpy(np.array(SMALL)).permute(2, 0, 1)[None].float() / 127.5 - 1
    found = pipeline(
        "a red fox",
        image=codes(pipeline, sample),
        strength=THEIRS,
        negative_prompt="blurry",
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
        **more,
    )
    return np.asarray(found.images[0]) * 255


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_it_is_diffusers_own_img2img(engine: DiffusersEngine, tmp_path: Path) -> None:
    expected = asked(pipeline_of("StableDiffusionImg2ImgPipeline", "sd1"))
    got = painted(engine, tiny_info("sd1"), source=source(tmp_path), steps=STEPS, cfg_scale=3.0)
    assert np.abs(got - expected).max() <= 2
    assert np.abs(got - np.asarray(SMALL).astype(int)).max() > 40, "something was painted"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
@pytest.mark.parametrize("image_scale", [1.0, 1.7])
def test_instructions_are_diffusers_own_instruct_pix2pix(image_scale: float, tmp_path: Path) -> None:
    """From noise alone, as the pipeline begins. Its latents of the picture are not scaled, and the third pass does not see them."""
    loaded = ModelKeeper(HARDWARE).checkpoint(tiny_info("sd1-edit"))
    vae = LoadedVae(loaded.model.vae, loaded.model.latent)
    plan = source(tmp_path).model_copy(update={"image_cfg_scale": image_scale})
    resolved = resolved_request(loaded.model.info, source=plan, steps=6, cfg_scale=3.0, negative_prompt="blurry")
    canvas = prepare(plan, None, (64, 64))
    with torch.no_grad():
        told = source_latents(canvas, resolved, vae, inpaint=False, edit=True, device=torch.device("cpu"))
    blank = replace(told, latents=torch.zeros_like(told.latents))
    *_, last = DenoisingPass(loaded, resolved, HARDWARE, Saving(), source=blank).steps([7])
    pipeline = pipeline_of("StableDiffusionInstructPix2PixPipeline", "sd1-edit")
    expected = pipeline(
        "a red fox",
        image=SMALL,
        negative_prompt="blurry",
        num_inference_steps=6,
        guidance_scale=3.0,
        image_guidance_scale=image_scale,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7)),
        output_type="latent",
    ).images
    torch.testing.assert_close(last.x, expected, rtol=0, atol=2e-3)
    assert (last.x - expected.roll(1, dims=-1)).abs().max() > 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_inpainting_checkpoints_are_told_what_diffusers_tells_them(engine: DiffusersEngine, tmp_path: Path) -> None:
    """Everything masked: where nothing is kept, both put nothing back."""
    pipeline = pipeline_of("StableDiffusionInpaintPipeline", "sd1-inpaint")
    hidden = codes(pipeline, torch.zeros(1, 3, 64, 64))
    everything = Image.new("L", (64, 64), 255)
    expected = asked(pipeline, mask_image=everything, masked_image_latents=hidden, height=64, width=64)
    got = painted(engine, tiny_info("sd1-inpaint"), source=source(tmp_path), steps=STEPS, cfg_scale=3.0)
    assert np.abs(got - expected).max() <= 2
