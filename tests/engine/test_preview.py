"""Previews against the vectors, their size and their format."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studio.engine.preview import MAX_SIDE, Previewer, latent_rgb, preview_size
from tests.vector_files import load_json

FACTORS = [[0.3, 0.2, 0.2], [0.2, 0.3, 0.2], [-0.2, 0.2, 0.3], [-0.2, -0.3, -0.5]]


@pytest.mark.parametrize("example", load_json("latent_rgb.json")["examples"], ids=lambda example: example["model"])
def test_vectors(example: dict[str, object]) -> None:
    model = load_json("latent_rgb.json")["models"][example["model"]]
    factors = torch.tensor(model["factors_channel_by_rgb"])
    bias = torch.tensor(model["bias_rgb"] or [0.0, 0.0, 0.0])
    pixels = latent_rgb(torch.tensor(example["latent_nchw"]), factors, bias)[0].int()
    assert (pixels - torch.tensor(example["rgb_uint8_hwc"])).abs().max() <= 1


def test_one_jpeg_for_each_picture_in_its_own_colour() -> None:
    latents = torch.zeros(2, 4, 4, 8)
    latents[1, 3] = -4.0
    dark, light = (Image.open(io.BytesIO(data)) for data in Previewer(FACTORS, [0.0] * 3, 8).draw(latents))
    assert (dark.format, dark.mode, dark.size) == ("JPEG", "RGB", (64, 32))
    assert all(abs(level - 127) <= 2 for level in dark.getpixel((30, 16)))
    assert light.getpixel((30, 16))[2] > 250


def test_nan_is_drawn_black_and_not_an_error() -> None:
    latents = torch.full((1, 4, 8, 8), torch.nan)
    assert latent_rgb(latents, torch.tensor(FACTORS), torch.zeros(3)).max() == 0


@given(st.integers(8, 4096), st.integers(8, 4096))
def test_size_is_bounded_and_keeps_the_shape(width: int, height: int) -> None:
    small_width, small_height = preview_size(width, height)
    assert 1 <= small_width <= min(width, MAX_SIDE)
    assert 1 <= small_height <= min(height, MAX_SIDE)
    assert abs(small_width * height - small_height * width) <= max(width, height)
