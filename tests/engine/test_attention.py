"""The attention kernels: all the same numbers, inside diffusers' modules too; and what a short number format may cost."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from studio.engine.attention import KernelProcessor, chunked, install, sdpa
from studio.engine.hardware import choose_hardware
from tests.tiny_models import tiny_components


def by_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / sqrt(d)) v in float64."""
    q, k, v = q.double(), k.double(), v.double()
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v


def off(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


SHAPES = [(2, 8, 16, 16, 40), (1, 2, 700, 700, 8), (2, 3, 1200, 77, 5), (1, 1, 513, 1030, 64), (1, 4, 1, 3, 2)]
"""(batch, heads, query tokens, tokens, width): one block, several, an uneven rest, very few."""


@pytest.mark.parametrize("kernel", [sdpa, chunked])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_kernel_is_attention(kernel: Any, shape: tuple[int, int, int, int, int]) -> None:
    batch, heads, rows, tokens, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    q, k, v = (torch.randn(batch, heads, n, width, generator=generator) for n in (rows, tokens, tokens))
    given = [x.clone() for x in (q, k, v)]
    found = kernel(q, k, v)
    assert found.shape == (batch, heads, rows, width)
    assert off(found, by_definition(q, k, v)) < 1e-6
    assert all(torch.equal(x, y) for x, y in zip((q, k, v), given, strict=True))
    short = [x.bfloat16() for x in (q, k, v)]
    assert off(kernel(*short), by_definition(*short)) < 1.5e-2


def processor_error(family: str, kernel: Any) -> float:
    """How far U-Net or VAE are off, at most, from what they give with diffusers' processor. float32."""
    parts = tiny_components(family)
    unet, vae = copy.deepcopy(parts["unet"]), copy.deepcopy(parts["vae"])
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, unet.config.in_channels, 16, 16, generator=generator)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    added = {}
    if family == "sdxl":
        added = {"text_embeds": torch.randn(2, 64, generator=generator), "time_ids": torch.ones(2, 6)}

    def outputs(processor: Any) -> tuple[Tensor, Tensor]:
        for module in (unet, vae):
            module.set_attn_processor(processor)
        noise = unet(x, 400, states, added_cond_kwargs=added or None, return_dict=False)[0]
        return noise, vae.decode(x[:1, :4]).sample

    with torch.inference_mode():
        found, expected = outputs(KernelProcessor(kernel)), outputs(AttnProcessor2_0())
    return max(off(one, two) for one, two in zip(found, expected, strict=True))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sprout"])
@pytest.mark.parametrize("kernel", [sdpa, chunked])
def test_the_processor_is_that_of_diffusers(family: str, kernel: Any) -> None:
    assert processor_error(family, kernel) < 2e-6


def wrong_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return chunked(q * 1.1, k, v)


def last_row_forgotten(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = chunked(q, k, v)
    out[:, :, -1:] = 0
    return out


def heads_mixed_up(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return chunked(q, k, v.roll(1, dims=1))


@pytest.mark.parametrize("broken", [wrong_scale, last_row_forgotten, heads_mixed_up])
def test_a_broken_kernel_is_noticed(broken: Any) -> None:
    assert processor_error("sd1", broken) > 1e-4


def test_bfloat16_stays_within_two_hundredths() -> None:
    hardware = choose_hardware("cpu", "chunked", "bf16")
    exact = tiny_components("sd1")["unet"]
    unet = copy.deepcopy(exact).to(hardware.dtype, memory_format=hardware.layout(hardware.dtype))
    hardware.prepare(unet)
    generator = torch.Generator().manual_seed(5)
    x, states = torch.randn(2, 4, 32, 32, generator=generator), torch.randn(2, 77, 32, generator=generator)
    with torch.inference_mode():
        found = unet(x.bfloat16(), 500, states.bfloat16(), return_dict=False)[0]
        assert off(found, exact(x, 500, states, return_dict=False)[0]) < 2e-2


def test_a_mask_is_refused() -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    install("chunked", unet)
    with pytest.raises(ValueError, match="masks"):
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 77, 32), encoder_attention_mask=torch.ones(1, 77))
