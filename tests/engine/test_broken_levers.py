"""What speeds painting up is held to the plain computation by tests; here each is broken on purpose, and its test has to notice.

Kernels of attention are broken in `test_attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.engine import deep_cache, lora
from studio.engine import packing as packing_of_weights
from studio.engine.attention import TextProjections
from studio.engine.denoise import GuidedUNet
from studio.engine.packing import PackedConv2d
from studio.engine.token_merging import Merging
from tests.engine import test_attention as attention
from tests.engine import test_deep_cache as caching
from tests.engine import test_denoise as denoising
from tests.engine import test_lora as merging_loras
from tests.engine import test_packing as packing
from tests.engine import test_token_merging as merging

Patch = pytest.MonkeyPatch


def one_cache_for_all_prompts(patch: Patch) -> None:
    patch.setattr(deep_cache, "id", lambda states: 0, raising=False)


def outer_blocks_without_the_time(patch: Patch) -> None:
    run = deep_cache._run

    def forgetful(block: Any, told: dict[str, Any], *, temb: Tensor, **inputs: Any) -> Any:
        return run(block, told, temb=torch.zeros_like(temb), **inputs)

    patch.setattr(deep_cache, "_run", forgetful)


def weights_packed_in_another_order(patch: Patch) -> None:
    patch.setattr(packing_of_weights, "PACKED_FROM", 1)  # the models of the tests have no large weights
    packed = PackedConv2d.packed
    patch.setattr(PackedConv2d, "packed", lambda self, weight: packed(self, weight.flip(3).contiguous()))


def keys_of_another_prompt(patch: Patch) -> None:
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self: TextProjections, attn: Any, states: Tensor, make: Callable[..., Any]) -> Any:
        return kept.setdefault(id(attn), make(attn, states))

    patch.setattr(TextProjections, "of", of)


def tokens_given_back_to_others(patch: Patch) -> None:
    unmerge = Merging.unmerge
    patch.setattr(Merging, "unmerge", lambda self, x: unmerge(self, x).roll(1, dims=1))


def a_little_of_a_lora_left_behind(patch: Patch) -> None:
    restore = lora.LoraStack._restore

    def careless(self: Any, weights: Any) -> None:
        changed = list(weights)
        restore(self, changed)
        for weight in changed:
            weight.data = weight.data * 1.001

    patch.setattr(lora.LoraStack, "_restore", careless)


def the_negative_prompt_left_out_at_every_call(patch: Patch) -> None:
    begin = GuidedUNet.__init__

    def lazy(self: GuidedUNet, *parts: Any, **more: Any) -> None:
        begin(self, *parts, **more)
        self._skip = lambda call, sigma: True

    patch.setattr(GuidedUNet, "__init__", lazy)


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (one_cache_for_all_prompts, caching.test_another_prompt_has_features_of_its_own),
        (
            outer_blocks_without_the_time,
            lambda: caching.test_the_outer_blocks_alone_give_the_same_where_nothing_changed("sd1"),
        ),
        pytest.param(
            weights_packed_in_another_order,
            lambda: packing.test_a_pass_is_the_same_in_float32_but_for_rounding((16, 16), 1, False),
            marks=packing.pytestmark,
        ),
        (
            keys_of_another_prompt,
            lambda: attention.test_what_is_kept_of_a_prompt_changes_no_bit_and_is_computed_once("sdpa"),
        ),
        (tokens_given_back_to_others, lambda: merging.test_merging_is_that_of_loops_over_tokens(4, 4, 0.5)),
        (
            a_little_of_a_lora_left_behind,
            lambda: merging_loras.test_taking_out_leaves_the_model_as_loaded_bit_for_bit(torch.float32),
        ),
        (the_negative_prompt_left_out_at_every_call, denoising.test_a_call_may_leave_the_negative_prompt_out),
    ],
)
def test_a_broken_lever_is_noticed(
    broken: Callable[[Patch], None], noticed: Callable[[], None], monkeypatch: Patch
) -> None:
    noticed()
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        noticed()
