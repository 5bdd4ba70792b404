"""Upscalers one by one, against matrices and Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studio.engine.decode import Decoder, to_samples
from studio.engine.enlarging import UpscalerModel
from studio.engine.esrgan import load_upscaler
from studio.engine.hardware import choose_hardware
from studio.engine.keeper import ModelKeeper
from studio.engine.loading import LoadedVae
from studio.engine.upscale import begun, enlarged
from studio.schema.resolved import HiresPlan
from studio.upscalers import DEFAULT_UPSCALER, UPSCALERS
from tests.engine.test_enlarging import done
from tests.engine.test_enlarging import info as upscaler_info
from tests.plans import prompt_plan
from tests.tiny_models import tiny_info

HARDWARE = choose_hardware("cpu", precision="fp32")


@pytest.fixture(scope="module")
def vae() -> LoadedVae:
    loaded = ModelKeeper(HARDWARE).checkpoint(tiny_info("sd1"))
    return LoadedVae(loaded.model.vae, loaded.model.latent)


def plan_of(upscaler: str, covering: tuple[int, int], final: tuple[int, int] | None = None) -> HiresPlan:
    width, height = final or covering
    values: dict[str, Any] = {
        "scale": None,
        "resize": (width, height),
        "width": width,
        "height": height,
        "covering": covering,
        "upscaler": upscaler,
        "model": tiny_info("sd1"),
        "steps": 4,
        "steps_given": False,
        "denoising_strength": 0.5,
        "sampler": "Euler",
        "schedule": "Uniform",
        "cfg_scale": 7.0,
        "positive": prompt_plan("x"),
        "negative": prompt_plan(""),
        "loras": (),
    }
    return HiresPlan(**values)


def through(x: torch.Tensor, plan: HiresPlan, vae: LoadedVae) -> torch.Tensor:
    """Both halves, with the autoencoder of one checkpoint."""
    large, _ = done(enlarged(x, plan, vae, lambda info: UpscalerModel(info, HARDWARE.device)))
    return begun(large, plan, vae)


def kernel(distance: float, mode: str) -> float:
    """Linear, or cubic with A = -0.75 (torch, plain) or -0.5 (antialiased); Keys 1981."""
    d = abs(distance)
    if mode == "bilinear":
        return max(0.0, 1 - d)
    a = -0.5 if mode == "bicubic aa" else -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def matrix(new: int, old: int, mode: str, *, antialias: bool) -> torch.Tensor:
    """[new, old]: every new value as a sum of old ones, edges repeated (plain) or left out and normalised (antialiased)."""
    rows = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(centre)) - 2, int(np.floor(centre)) + 4):
            weight = kernel(j - centre, f"{mode} aa" if antialias and mode == "bicubic" else mode)
            if antialias and not 0 <= j < old:
                continue
            rows[i, min(max(j, 0), old - 1)] += weight
    return rows / rows.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_latents_are_interpolated(vae: LoadedVae, mode: str, antialias: bool) -> None:
    (row,) = [row for row in UPSCALERS if (row.latents, row.antialias) == (mode, antialias)]
    x = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    got = through(x, plan_of(row.name, (88, 120)), vae)
    down, across = matrix(15, 8, mode, antialias=antialias), matrix(11, 6, mode, antialias=antialias)
    torch.testing.assert_close(got.double(), down @ x.double() @ across.T, rtol=0, atol=1e-5)


def test_nearest_latents(vae: LoadedVae) -> None:
    x = torch.arange(3.0).reshape(1, 1, 1, 3).expand(1, 4, 1, 3)
    plain, exact = (
        through(x, plan_of(f"Latent ({name})", (40, 8)), vae)[0, 0, 0].tolist() for name in ("nearest", "nearest-exact")
    )
    assert plain == [0, 0, 1, 1, 2], "the place is rounded down"
    assert exact == [0, 0, 1, 2, 2], "the middle of the new one decides"


def test_what_is_over_is_cut_off_evenly(vae: LoadedVae) -> None:
    x = torch.arange(8.0).reshape(1, 1, 1, 8).expand(1, 4, 8, 8)
    got = through(x, plan_of("Latent", (64, 64), (40, 64)), vae)
    assert got.shape == (1, 4, 8, 5)
    assert got[0, 0, 0].tolist() == [1, 2, 3, 4, 5], "of three, one at the left and two at the right, as A1111 cuts"


@pytest.mark.parametrize("name", ["None", "Lanczos", "Nearest"])
@torch.no_grad()
def test_pictures_are_enlarged_by_pillow_and_encoded(vae: LoadedVae, name: str) -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    got = through(x, plan_of(name, (96, 128)), vae)
    for latents, result in zip(x, got, strict=True):
        kind = Image.Resampling.NEAREST if name == "Nearest" else Image.Resampling.LANCZOS
        large = Decoder(vae).picture(latents).resize((96, 128), kind)
        pixels = torch.tensor(np.asarray(large)).permute(2, 0, 1)[None] / 127.5 - 1
        mean = vae.module.encode(pixels).latent_dist.mean[0]
        torch.testing.assert_close(result, mean * vae.latent.scaling_factor, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_enlarges_the_picture_and_what_is_missing_is_lanczos(vae: LoadedVae) -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    plan = plan_of("compact-2x", (160, 192)).model_copy(update={"upscaler_model": upscaler_info("compact-2x")})
    module, _ = load_upscaler(Path(upscaler_info("compact-2x").path), HARDWARE.device)
    for latents, result in zip(x, through(x, plan, vae), strict=True):
        picture = np.asarray(Decoder(vae).picture(latents)) / np.float32(255)
        for _ in range(2):  # 64 pixels, 128, 256
            blue_first = torch.tensor(picture[..., ::-1].copy()).permute(2, 0, 1)[None]
            large = module(blue_first)[0].clamp(0, 1).permute(1, 2, 0).numpy()[..., ::-1]
            picture = np.rint(large * 255) / np.float32(255)
        final = Image.fromarray((picture * 255).round().astype(np.uint8)).resize((160, 192), Image.Resampling.LANCZOS)
        pixels = torch.tensor(np.asarray(final)).permute(2, 0, 1)[None] / 127.5 - 1
        mean = vae.module.encode(pixels).latent_dist.mean[0]
        torch.testing.assert_close(result, mean * vae.latent.scaling_factor, rtol=0, atol=1e-4)


def test_a_picture_is_a_sample_and_back() -> None:
    picture = Image.new("RGB", (3, 2), (0, 255, 51))
    sample = to_samples(picture)
    assert sample.shape == (3, 2, 3)
    assert sample[:, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])


def test_the_table() -> None:
    assert UPSCALERS.names()[0] == DEFAULT_UPSCALER == "Latent"
    assert UPSCALERS.get("lanczos").name == "Lanczos"
    assert [row.name for row in UPSCALERS if row.latents is None] == ["None", "Lanczos", "Nearest"]
