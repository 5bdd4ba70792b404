"""The attention kernels: all the same numbers, inside diffusers' modules too; and what a short number format may cost."""

from __future__ import annotations

import copy
import inspect
import math
import weakref
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from studio.engine.attention import KERNELS, KernelProcessor, TextProjections, chunked, install, sdpa
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


def processor_errors(family: str, kernel: Any) -> list[tuple[float, float]]:
    """For U-Net and VAE: how far they are off from float64 with this kernel, and with diffusers' own processor. float32."""
    parts = tiny_components(family)
    unet, vae = copy.deepcopy(parts["unet"]), copy.deepcopy(parts["vae"])
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, unet.config.in_channels, 16, 16, generator=generator)
    states = torch.randn(2, 77, unet.config.cross_attention_dim, generator=generator)
    added = {}
    if family == "sdxl":
        added = {"text_embeds": torch.randn(2, 64, generator=generator), "time_ids": torch.ones(2, 6)}

    def outputs(processor: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        for module in (unet, vae):
            module.to(dtype).set_attn_processor(processor)
        told = {name: tensor.to(dtype) for name, tensor in added.items()} or None
        noise = unet(x.to(dtype), 400, states.to(dtype), added_cond_kwargs=told, return_dict=False)[0]
        return noise, vae.decode(x[:1, :4].to(dtype)).sample

    with torch.inference_mode():
        found, usual = outputs(KernelProcessor(kernel)), outputs(AttnProcessor2_0())
        exact = outputs(AttnProcessor2_0(), torch.float64)
    return [(off(ours, right), off(theirs, right)) for ours, theirs, right in zip(found, usual, exact, strict=True)]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sprout"])
@pytest.mark.parametrize("kernel", [sdpa, chunked])
def test_the_processor_rounds_no_worse_than_that_of_diffusers(family: str, kernel: Any) -> None:
    """How much that is depends on the machine's matrix products."""
    for ours, theirs in processor_errors(family, kernel):
        assert theirs < 1e-5
        assert ours < 2 * theirs


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
    (ours, theirs), _ = processor_errors("sd1", broken)
    assert ours > 50 * theirs


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


@pytest.mark.parametrize("kernel", ["sdpa", "chunked"])
def test_what_is_kept_of_a_prompt_changes_no_bit_and_is_computed_once(kernel: Any) -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    install(kernel, unet)
    generator = torch.Generator().manual_seed(7)
    prompts = [torch.randn(2, 77, 32, generator=generator) for _ in range(TextProjections.KEPT + 2)]
    kept = TextProjections()
    computed: list[int] = []
    layers = [module.attn2 for name, module in unet.named_modules() if name.endswith("transformer_blocks.0")]
    hooks = [layer.to_k.register_forward_hook(lambda *_: computed.append(1)) for layer in layers]

    def noise(x: Tensor, states: Tensor, projections: TextProjections | None) -> Tensor:
        told = {"projections": projections} if projections else None
        out: Tensor = unet(x, 400, states, cross_attention_kwargs=told, return_dict=False)[0]
        return out

    with torch.inference_mode():
        for number in (0, 1, 0, 1, *range(2, len(prompts)), 0, 0):
            x = torch.randn(2, 4, 8, 8, generator=generator)
            states = prompts[number].clone() if number > 1 else prompts[number]
            found = noise(x, states, kept)
            held = weakref.ref(states)
            del states
            assert held() is not None, "another tensor could get its id"
            before = len(computed)
            assert torch.equal(found, noise(x, prompts[number], None))
            del computed[before:]
    for hook in hooks:
        hook.remove()
    assert len(computed) == len(layers) * (len(prompts) + 1)  # the first had to go, and was computed again, once


def test_every_kernel_of_the_table_can_be_installed() -> None:
    unet = copy.deepcopy(tiny_components("sd1")["unet"])
    for name, kernel in KERNELS.items():
        install(name, unet)
        assert {processor.kernel for processor in unet.attn_processors.values()} == {kernel}


def test_which_arguments_a_processor_takes_is_at_hand() -> None:
    """diffusers asks at every call of every layer."""
    known = inspect.signature(KernelProcessor.__call__)
    assert known is inspect.signature(KernelProcessor.__call__), "not read off the function anew"
    assert set(inspect.signature(KernelProcessor(KERNELS["sdpa"]).__call__).parameters) == set(known.parameters) - {
        "self"
    }
    assert "projections" in known.parameters
