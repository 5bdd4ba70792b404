"""Which model calls leave the negative prompt out, and whether a pass has one at all."""

from __future__ import annotations

import pytest

from studio.samplers.guidance import NegativeSkip, is_guided, needs_negative
from studio.samplers.table import find_sampler
from studio.schema.parts import SamplerOptions

EULER, HEUN = find_sampler("Euler"), find_sampler("Heun")


def rule(**options: float) -> NegativeSkip:
    return NegativeSkip.of(SamplerOptions.model_validate(options), EULER, 10)


def skipped(rule: NegativeSkip, levels: list[float]) -> list[int]:
    return [call for call, level in enumerate(levels) if rule.skips(call, level)]


def test_nothing_is_left_out_unless_asked_for() -> None:
    assert skipped(rule(), [9.0, 1.0, 0.0]) == []
    assert skipped(rule(s_min_uncond_all=True), [9.0, 1.0, 0.0]) == []


def test_below_a_sigma_every_second_call_is_without() -> None:
    """The odd ones, counted over the whole pass; the sigma itself is not below itself."""
    levels = [14.0, 8.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.1]
    assert skipped(rule(s_min_uncond=3), levels) == [5, 7]
    assert skipped(rule(s_min_uncond=3.1), levels) == [3, 5, 7]
    assert skipped(rule(s_min_uncond=3, s_min_uncond_all=True), levels) == [4, 5, 6, 7]


@pytest.mark.parametrize("share, last", [(0.01, 0), (0.1, 1), (0.25, 2), (0.3, 3), (1.0, 9)])
def test_the_beginning_is_a_share_of_the_calls(share: float, last: int) -> None:
    assert skipped(rule(skip_early_cond=share), [9.0] * 10) == list(range(last + 1))
    second_order = NegativeSkip.of(SamplerOptions(skip_early_cond=share), HEUN, 5)
    assert skipped(second_order, [9.0] * 10) == list(range(last + 1))


def test_either_rule_is_enough() -> None:
    assert skipped(rule(skip_early_cond=0.1, s_min_uncond=5), [9.0, 9.0, 4.0, 4.0, 4.0, 4.0]) == [0, 1, 3, 5]


def test_the_negative_prompt_is_idle_only_under_one_prompt_at_scale_one() -> None:
    assert not needs_negative([1.0])
    assert all(needs_negative(scales) for scales in ([0.5], [0.0], [1.0, 1.0], [7.0]))


def test_a_sampler_may_want_it_or_scale_the_guidance() -> None:
    plus = find_sampler("DDIM CFG++")
    assert not is_guided(EULER, 1.0, [1.0])
    assert is_guided(EULER, 1.0, [0.5]) and is_guided(EULER, 1.0, [1.0, 1.0]) and is_guided(EULER, 7.0, [1.0])
    assert is_guided(plus, 12.5, [1.0])
