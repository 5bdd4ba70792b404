"""Per-picture noise: batches, repeatability, variation, resizing, Brownian paths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from studio.errors import InvalidRequest
from studio.samplers import ImageNoise
from studio.samplers.brownian import BrownianTree
from studio.samplers.noise import slerp
from studio.schema.request import RngSource

SHAPE = (4, 6, 5)
SEEDS = (41, 42, 43, 44)

every_source = pytest.mark.parametrize("source", ["CPU", "NV", "GPU"])


@every_source
@pytest.mark.parametrize("options", [{}, {"ensd": 31337}, {"resize_from": (9, 3)}])
def test_batch_of_four_equals_four_singles(source: RngSource, options: dict[str, Any]) -> None:
    batch = ImageNoise(SEEDS, SHAPE, source=source, **options)
    singles = [ImageNoise([seed], SHAPE, source=source, **options) for seed in SEEDS]
    for _ in range(3):
        assert torch.equal(batch.draw(), torch.cat([single.draw() for single in singles]))
    assert torch.equal(batch.start(), torch.cat([single.start() for single in singles]))
    path, paths = batch.brownian(0.03, 14.6), [single.brownian(0.03, 14.6) for single in singles]
    assert torch.equal(path(9.5, 4.25), torch.cat([one(9.5, 4.25) for one in paths]))


class Cuda(TorchFunctionMode):
    """Stands in for a card: notes what is pinned, and how tensors come to it; they stay where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: list[torch.Tensor] = []
        self.came: list[tuple[bool, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks for every call."""
        kwargs = kwargs or {}
        if func == torch.Tensor.pin_memory:
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        if func == torch.Tensor.to and torch.device("cuda") in (*args, kwargs.get("device")):
            is_pinned = any(args[0] is tensor for tensor in self.pinned)
            self.came.append((is_pinned, kwargs.get("non_blocking", False)))
            return args[0]
        return func(*args, **kwargs)


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_noise_comes_to_a_card_without_waiting_for_its_work(source: RngSource) -> None:
    here = ImageNoise(SEEDS, SHAPE, source=source, dtype=torch.float32)
    with Cuda() as card:
        there = ImageNoise(SEEDS, SHAPE, source=source, device=torch.device("cuda"), dtype=torch.float32)
        for noise in (there.start(), there.draw(), there.brownian(0.03, 14.6)(9.5, 4.25)):
            assert noise.dtype == torch.float32
        assert card.came == [(True, True)] * 3
    assert torch.equal(card.pinned[0], here.start())
    assert torch.equal(card.pinned[1], here.draw())


@every_source
def test_draws_differ_and_start_does_not(source: RngSource) -> None:
    noise = ImageNoise(SEEDS, SHAPE, source=source)
    assert torch.equal(noise.start(), noise.start())
    first, second = noise.draw(), noise.draw()
    assert not torch.equal(first, second)
    assert not torch.equal(first, noise.start())


def test_variation_and_resizing_leave_the_later_draws() -> None:
    plain = ImageNoise(SEEDS, SHAPE)
    varied = ImageNoise(SEEDS, SHAPE, subseeds=[1, 2, 3, 4], subseed_strength=0.4, resize_from=(3, 9))
    assert not torch.equal(plain.start(), varied.start())
    assert torch.equal(plain.draw(), varied.draw())


def test_variation_strength_ends() -> None:
    ours, other = ImageNoise([5], SHAPE).start(), ImageNoise([6], SHAPE).start()
    for strength, expected in ((0.0, ours), (1.0, other)):
        mixed = ImageNoise([5], SHAPE, subseeds=[6], subseed_strength=strength).start()
        torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


@given(strength=st.floats(0, 1), seed=st.integers(0, 1000))
def test_slerp_keeps_the_length_of_equally_long_columns(strength: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low, high = (torch.nn.functional.normalize(torch.randn(SHAPE, generator=generator), dim=1) for _ in range(2))
    mixed = slerp(strength, low, high)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(4, 5), rtol=1e-3, atol=1e-3)


@given(old_h=st.integers(1, 14), old_w=st.integers(1, 14))
def test_resized_noise_is_the_old_noise_in_the_middle(old_h: int, old_w: int) -> None:
    """Every element comes from the background at its own place or from the old noise at a constant offset."""
    new_h, new_w = SHAPE[1:]
    resized = ImageNoise([9], SHAPE, resize_from=(old_h, old_w)).start()[0]
    background = ImageNoise([9], SHAPE).start()[0]
    old = ImageNoise([9], (SHAPE[0], old_h, old_w)).start()[0]
    dy, dx = (new_h - old_h) // 2, (new_w - old_w) // 2
    for y in range(new_h):
        for x in range(new_w):
            inside = 0 <= y - dy < old_h and 0 <= x - dx < old_w
            # A larger old picture is cut at both sides alike; an odd difference leaves a line of background.
            cropped = (dy < 0 and y >= old_h + 2 * dy) or (dx < 0 and x >= old_w + 2 * dx)
            expected = old[:, y - dy, x - dx] if inside and not cropped else background[:, y, x]
            assert torch.equal(resized[:, y, x], expected)


def test_bad_seeds_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one seed"):
        ImageNoise([], SHAPE)
    with pytest.raises(InvalidRequest, match="1 variation seeds for 2 seeds"):
        ImageNoise([1, 2], SHAPE, subseeds=[3], subseed_strength=0.5)


def test_dtype_is_as_asked() -> None:
    noise = ImageNoise([1], SHAPE, dtype=torch.float16)
    assert noise.start().dtype == noise.draw().dtype == noise.brownian(0.1, 1.0)(1.0, 0.5).dtype == torch.float16


def path(shape: tuple[int, ...] = (64, 64)) -> BrownianTree:
    def normal(seed: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return BrownianTree(0.03, 14.6, 5, normal)


@given(levels=st.lists(st.floats(0.03, 14.6), min_size=3, max_size=3))
def test_brownian_increments_add_up(levels: list[float]) -> None:
    a, b, c = sorted(levels)
    tree = path((4,))
    torch.testing.assert_close(tree.increment(a, b) + tree.increment(b, c), tree.increment(a, c), rtol=0, atol=1e-4)


def test_brownian_path_does_not_depend_on_what_was_asked_before() -> None:
    used, fresh = path(), path()
    for i in range(60):  # more than the cache holds
        used.increment(0.03, 0.2 * (i + 1))
    assert torch.equal(used.increment(1.25, 7.7), fresh.increment(1.25, 7.7))


@pytest.mark.parametrize("a, b", [(0.03, 14.6), (0.03, 0.5), (2.0, 2.25), (7.315, 14.6), (3.0, 3.00001)])
def test_brownian_increment_has_the_variance_of_its_length(a: float, b: float) -> None:
    increment = path().increment(a, b)
    assert float(increment.mean()) == pytest.approx(0, abs=4 * math.sqrt((b - a) / 4096))
    assert float(increment.var()) == pytest.approx(b - a, rel=0.1)


def test_brownian_increments_of_separate_intervals_are_independent() -> None:
    tree = path()
    first, second = tree.increment(1.0, 3.0).flatten(), tree.increment(3.0, 8.0).flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.06


def test_brownian_ends_and_empty_intervals() -> None:
    tree = path()
    assert torch.equal(tree.increment(0.0, 99.0), tree.increment(0.03, 14.6))
    assert not tree.increment(2.0, 2.0).any()


def test_brownian_noise_turns_its_sign_with_the_direction() -> None:
    noise = ImageNoise([5], SHAPE).brownian(0.03, 14.6)
    assert torch.equal(noise(4.0, 2.0), -noise(2.0, 4.0))
