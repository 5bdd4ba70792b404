"""Token merging: against loops over single tokens, inside the U-Net too; each picture by itself; nothing left behind at 0."""

from __future__ import annotations

import copy
import inspect
import io
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from PIL import Image
from torch import Tensor

from studio.engine.attention import KernelProcessor
from studio.engine.deep_cache import DeepCacheUNet
from studio.engine.runner import DiffusersEngine
from studio.engine.token_merging import (
    Merging,
    MergingProcessor,
    TokenGrid,
    has_fine_attention,
    means_by_adding,
    means_in_order,
    set_merging,
)
from studio.schema.engine import CancelToken
from studio.schema.events import ImageReady, Status
from tests.engine.samples import resolved_request
from tests.tiny_models import tiny_components, tiny_info

CPU = torch.device("cpu")


def by_loops(features: Any, height: int, width: int, count: int) -> tuple[list[int], dict[int, list[int]]]:
    """One picture's tokens, float64: the sources that are kept, and for each target those that are merged into it."""
    targets = [row * width + column for row in range(0, height - 1, 2) for column in range(0, width - 1, 2)]
    likest = []
    for source in (token for token in range(height * width) if token not in targets):
        alike = [
            float(features[source] @ features[target])
            / float(np.linalg.norm(features[source]) * np.linalg.norm(features[target]))
            for target in targets
        ]
        best = int(np.argmax(alike))
        likest.append((-alike[best], source, targets[best]))
    likest.sort()
    merged: dict[int, list[int]] = {target: [] for target in targets}
    for _, source, target in likest[:count]:
        merged[target].append(source)
    return [source for _, source, _ in likest[count:]], merged


def merged_by_loops(features: Tensor, x: Tensor, height: int, width: int, count: int) -> tuple[Tensor, list[list[int]]]:
    """[N, C] to what attention sees, and for each of its rows the tokens that get what it gives."""
    kept, merged = by_loops(features.double().numpy(), height, width, count)
    rows = [[source] for source in kept] + [[target, *sources] for target, sources in merged.items()]
    return torch.stack([x[row].double().mean(dim=0) for row in rows]), rows


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("height, width", [(4, 4), (6, 8), (5, 7), (2, 3)])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_merging_is_that_of_loops_over_tokens(height: int, width: int, ratio: float) -> None:
    tokens, count = height * width, int(height * width * ratio)
    features, x = drawn(3, tokens, 6), drawn(3, tokens, 5, seed=2)
    merging = Merging(TokenGrid(height, width, CPU), features, count)
    found = merging.merge(x)
    back = merging.unmerge(found)
    assert back.shape == x.shape
    for picture in range(3):
        expected, rows = merged_by_loops(features[picture], x[picture], height, width, count)
        assert len(found[picture]) == len(expected)
        for row, members in zip(expected, rows, strict=True):
            assert torch.allclose(back[picture, members].double(), row.expand(len(members), -1), atol=1e-6)


def test_only_cards_need_what_only_they_and_processors_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple graphics have no kernel for it."""

    def missing(*given: Any, **more: Any) -> Tensor:
        raise NotImplementedError("Could not run 'aten::segment_reduce' with arguments from the 'MPS' backend.")

    monkeypatch.setattr(torch, "segment_reduce", missing)
    merging = Merging(TokenGrid(8, 8, CPU), drawn(2, 64, 6), 32)
    assert merging.merge(drawn(2, 64, 5, seed=2)).shape == (2, 32, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_means_of_cards_are_those_of_other_devices(dtype: torch.dtype) -> None:
    targets, merged = drawn(3, 16, 5).to(dtype), drawn(3, 40, 5, seed=2).to(dtype)
    match = torch.randint(16, (3, 40), generator=torch.Generator().manual_seed(4))
    match[match == 7] = 8  # a target that nothing is merged into
    one, two = (means(targets, merged, match) for means in (means_by_adding, means_in_order))
    assert one.dtype == two.dtype == torch.float32
    assert torch.equal(one, two)


def slow_block(size: tuple[int, int], ratio: float) -> Any:
    """diffusers' transformer block as its paper has it, with tokens merged one by one where there is one for each latent."""
    height, width = size
    count = int(height * width * ratio)

    def attend(block: BasicTransformerBlock, x: Tensor, normal: Tensor) -> Tensor:
        seen, rows = merged_by_loops(x, normal, height, width, count)
        out, back = block.attn1(seen[None].to(x)), torch.empty_like(x)
        for row, members in enumerate(rows):
            back[members] = out[0, row]
        return back

    def forward(block: BasicTransformerBlock, x: Tensor, encoder_hidden_states: Any = None, **_: Any) -> Tensor:
        normal = block.norm1(x)
        fine = x.shape[1] == height * width
        one = (
            torch.stack([attend(block, *each) for each in zip(x, normal, strict=True)]) if fine else block.attn1(normal)
        )
        x = x + one
        x = x + block.attn2(block.norm2(x), encoder_hidden_states=encoder_hidden_states)
        return x + block.ff(block.norm3(x))

    return forward


def fresh_unet(family: str = "sd1") -> Any:
    return copy.deepcopy(tiny_components(family)["unet"])


def noise_of(unet: Any, x: Tensor, seed: int = 5) -> Tensor:
    states = drawn(1, 77, unet.config.cross_attention_dim, seed=seed).expand(len(x), -1, -1)
    with torch.inference_mode():
        out: Tensor = unet(x, torch.full((len(x),), 400.0), states, added_cond_kwargs=None, return_dict=False)[0]
    return out


@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
def test_the_unet_is_that_of_loops_over_tokens(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    unet, x = fresh_unet(), drawn(2, 4, *size)
    plain = noise_of(unet, x)
    set_merging(unet, 0.5, *size)
    found = noise_of(unet, x)
    set_merging(unet, 0, *size)
    monkeypatch.setattr(BasicTransformerBlock, "forward", slow_block(size, 0.5))
    expected = noise_of(unet, x)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert float((plain - expected).norm() / expected.norm()) > 1e-2


def test_a_ratio_of_0_leaves_the_unet_as_it_was_built() -> None:
    unet, x = fresh_unet(), drawn(1, 4, 8, 8)
    processors, before = dict(unet.attn_processors), noise_of(unet, x)
    set_merging(unet, 0.5, 8, 8)
    set_merging(unet, 0.3, 8, 8)
    merged = noise_of(unet, x)
    set_merging(unet, 0, 8, 8)
    assert torch.equal(noise_of(unet, x), before)
    assert not torch.allclose(merged, before)
    assert unet.attn_processors == processors
    assert not any(module._forward_pre_hooks for module in unet.modules())


def test_the_processor_takes_what_the_one_inside_takes() -> None:
    """diffusers would warn of anything else, at every call."""
    outer, inner = (list(inspect.signature(each.__call__).parameters) for each in (MergingProcessor, KernelProcessor))
    assert outer == inner


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    unet, x = fresh_unet(), drawn(3, 4, 8, 8)
    set_merging(unet, 0.5, 8, 8)
    others = torch.cat((x[:1], drawn(2, 4, 8, 8, seed=9)))
    assert torch.equal(noise_of(unet, x)[0], noise_of(unet, others)[0])
    alone = torch.cat([noise_of(unet, each[None]) for each in x])
    assert torch.allclose(noise_of(unet, x), alone, atol=1e-5)


def test_it_works_with_a_deep_cache() -> None:
    unet, x = fresh_unet(), drawn(2, 4, 8, 8)
    set_merging(unet, 0.5, 8, 8)
    cached, states, time = DeepCacheUNet(unet, 2), drawn(2, 77, 32), torch.full((2,), 400.0)
    with torch.inference_mode():
        whole, shallow = (
            cached(x, time.clone(), states, added_cond_kwargs=None, return_dict=False)[0] for _ in range(2)
        )
    assert torch.equal(whole, shallow)


def test_compiled_blocks_notice_it() -> None:
    block = BasicTransformerBlock(8, 1, 8, cross_attention_dim=4).eval().requires_grad_(False)
    holder, x, states = torch.nn.ModuleList([block]), drawn(1, 16, 8), drawn(1, 3, 4)

    def outputs() -> list[Tensor]:
        found = []
        for ratio in (0, 0.5, 0.25, 0):
            set_merging(holder, ratio, 4, 4)
            with torch.inference_mode():
                found.append(block(x, encoder_hidden_states=states))
        return found

    expected = outputs()
    block.compile(backend="eager", dynamic=True, fullgraph=True)
    assert all(torch.equal(one, two) for one, two in zip(outputs(), expected, strict=True))
    assert len({one.sum().item() for one in expected}) == 3


def paint(engine: DiffusersEngine, family: str = "sd1", **changes: Any) -> tuple[list[ImageReady], list[str]]:
    events = list(engine.run(resolved_request(tiny_info(family), **changes), CancelToken()))
    said = [event.message for event in events if isinstance(event, Status)]
    return [event for event in events if isinstance(event, ImageReady)], said


def pixels(picture: ImageReady) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture.png))).astype(int)


@pytest.mark.parametrize("more", [{}, {"tiling": True}, {"deep_cache": 2}])
def test_it_changes_the_picture_in_the_same_way_again(engine: DiffusersEngine, more: dict[str, Any]) -> None:
    changes = {"token_merging_ratio": 0.5, "cfg_scale": 2.0, "width": 96, **more}
    (plain,), _ = paint(engine, **{**changes, "token_merging_ratio": 0.0})
    torch.manual_seed(1)
    (merged,), said = paint(engine, **changes)
    torch.manual_seed(2)
    drawn_before = torch.get_rng_state()
    (again,), _ = paint(engine, **changes)
    assert torch.equal(torch.get_rng_state(), drawn_before)
    assert merged.png == again.png
    assert "Token merging ratio: 0.5" in merged.infotext and "Token merging" not in plain.infotext
    assert 0 < np.abs(pixels(plain) - pixels(merged)).mean() < np.abs(pixels(plain) - pixels(plain)[::-1]).mean() / 2
    assert not any("no tokens" in message for message in said)
    assert paint(engine, **{**changes, "token_merging_ratio": 0.0})[0][0].png == plain.png


def test_a_batch_is_its_pictures_one_by_one(engine: DiffusersEngine) -> None:
    changes = {"token_merging_ratio": 0.5, "cfg_scale": 3.0}
    batch, _ = paint(engine, batch_size=4, seed=20, **changes)
    singles = [paint(engine, seed=20 + number, **changes)[0][0] for number in range(4)]
    assert max(np.abs(pixels(one) - pixels(two)).max() for one, two in zip(batch, singles, strict=True)) <= 2


@pytest.mark.parametrize("family", ["sdxl", "sprout"])
def test_where_there_is_nothing_to_merge_it_is_said(engine: DiffusersEngine, family: str) -> None:
    assert not has_fine_attention(tiny_components(family)["unet"])
    (plain,), _ = paint(engine, family)
    (merged,), said = paint(engine, family, token_merging_ratio=0.5)
    assert np.array_equal(pixels(plain), pixels(merged))
    assert [message for message in said if "no tokens are merged" in message]
