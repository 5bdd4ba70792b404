"""The σ-space denoiser around models whose answer is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.engine.denoise import Condition, GuidedUNet, Timeline

SIGMA = 2.5
X0 = torch.linspace(-1, 1, 4 * 4 * 4).reshape(1, 4, 4, 4)
NOISE = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
X = X0 + SIGMA * NOISE


def condition(value: float, length: int = 77, **added: Tensor) -> Condition:
    return Condition(torch.full((1, length, 8), value), added or None)


@dataclass
class FakeUNet:
    """Answers `answer(sample, row condition value)`; remembers how it was called."""

    answer: Any = lambda sample, value: sample * 0 + value
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **more: Any) -> tuple[Tensor]:
        self.calls.append({"sample": sample, "timestep": timestep, "states": encoder_hidden_states, **more})
        return (self.answer(sample, encoder_hidden_states[:, 0, 0].view(-1, 1, 1, 1)),)


def guided(
    unet: FakeUNet, positive: Condition, negative: Condition | None, scale: float = 7.0, **changes: Any
) -> GuidedUNet:
    settings: dict[str, Any] = {"prediction_type": "epsilon", "dtype": torch.float32, **changes}
    return composed(
        unet, [always(positive)], always(negative) if negative else None, scale,
        settings["prediction_type"], settings["dtype"], settings.get("concat"),
    )  # fmt: skip


def composed(
    unet: FakeUNet, positive: list[Timeline], negative: Timeline | None, scale: float, prediction: Any = "epsilon",
    dtype: torch.dtype = torch.float32, concat: Tensor | None = None,
) -> GuidedUNet:  # fmt: skip
    return GuidedUNet(unet, lambda sigma: 100 * sigma, prediction, positive, negative, scale, dtype, concat)


def always(condition: Condition, weight: float = 1.0) -> Timeline:
    return Timeline(((0, condition),), weight)


def test_a_perfect_noise_predictor_gives_x0() -> None:
    unet = FakeUNet(lambda sample, value: NOISE)
    got = guided(unet, condition(1.0), None, 1.0)(X, SIGMA)
    torch.testing.assert_close(got, X0.expand(2, -1, -1, -1), atol=1e-5, rtol=0)


def test_a_perfect_v_predictor_gives_x0() -> None:
    v = (NOISE - SIGMA * X0) / (SIGMA**2 + 1) ** 0.5
    unet = FakeUNet(lambda sample, value: v)
    got = guided(unet, condition(1.0), None, 1.0, prediction_type="v_prediction")(X, SIGMA)
    torch.testing.assert_close(got, X0.expand(2, -1, -1, -1), atol=1e-5, rtol=0)


def test_the_model_sees_unit_variance_and_the_timestep() -> None:
    unet = FakeUNet()
    guided(unet, condition(1.0), None, 1.0)(X, SIGMA)
    (call,) = unet.calls
    torch.testing.assert_close(call["sample"], X / (SIGMA**2 + 1) ** 0.5)
    assert call["timestep"].tolist() == [250.0, 250.0]


@pytest.mark.parametrize("lengths", [(77, 77), (154, 77)])
def test_guidance_is_linear_whether_in_one_pass_or_two(lengths: tuple[int, int]) -> None:
    unet = FakeUNet()
    denoiser = guided(unet, condition(0.5, lengths[0]), condition(0.1, lengths[1]), 3.0)
    expected = X - SIGMA * (0.1 + 3.0 * (0.5 - 0.1))
    torch.testing.assert_close(denoiser(X, SIGMA), expected)
    assert [len(call["sample"]) for call in unet.calls] == ([4] if lengths == (77, 77) else [2, 2])
    both, uncond = denoiser.guided_and_uncond(X, SIGMA)
    torch.testing.assert_close(both, expected)
    torch.testing.assert_close(uncond, X - SIGMA * 0.1)


def test_scale_one_asks_for_the_positive_prompt_only() -> None:
    unet = FakeUNet()
    got = guided(unet, condition(0.5), condition(0.1), 1.0)(X, SIGMA)
    torch.testing.assert_close(got, X - SIGMA * 0.5)
    assert [len(call["sample"]) for call in unet.calls] == [2]


def test_added_conditions_follow_their_rows() -> None:
    unet = FakeUNet()
    denoiser = guided(
        unet, condition(0.5, ids=torch.tensor([[1016.0, 7.0]])), condition(0.1, ids=torch.tensor([[8.0, 9.0]]))
    )
    denoiser(X, SIGMA)
    assert unet.calls[0]["added_cond_kwargs"]["ids"].tolist() == [[1016.0, 7.0], [1016.0, 7.0], [8.0, 9.0], [8.0, 9.0]]


def test_extra_input_channels_are_appended_to_every_row() -> None:
    unet = FakeUNet(lambda sample, value: sample[:, :4])
    extra = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 4, 4)
    guided(unet, condition(0.5), condition(0.1), concat=extra)(X, SIGMA)
    sample = unet.calls[0]["sample"]
    assert sample.shape == (4, 9, 4, 4)
    assert all(torch.equal(row, extra[0]) for row in sample[:, 4:])


def test_only_the_model_runs_in_its_format() -> None:
    unet = FakeUNet()
    got = guided(unet, condition(0.5), condition(0.1), dtype=torch.bfloat16)(X, SIGMA)
    assert got.dtype == torch.float32
    assert unet.calls[0]["sample"].dtype == unet.calls[0]["states"].dtype == torch.bfloat16
    assert unet.calls[0]["timestep"].dtype == torch.float32


def test_an_uncond_prediction_needs_a_negative_prompt() -> None:
    with pytest.raises(ValueError, match="negative"):
        guided(FakeUNet(), condition(0.5), None).guided_and_uncond(X, SIGMA)


@pytest.mark.parametrize("lengths", [(77, 77), (154, 77)])
def test_several_prompts_are_summed_by_their_weights(lengths: tuple[int, int]) -> None:
    unet = FakeUNet()
    positive = [always(condition(0.5, lengths[0])), always(condition(0.9, lengths[1]), -0.5)]
    denoiser = composed(unet, positive, always(condition(0.1)), 3.0)
    expected = X - SIGMA * (0.1 + 3.0 * (0.5 - 0.1) - 1.5 * (0.9 - 0.1))
    torch.testing.assert_close(denoiser(X, SIGMA), expected)
    assert [len(call["sample"]) for call in unet.calls] == ([6] if lengths == (77, 77) else [2, 2, 2])
    both, uncond = denoiser.guided_and_uncond(X, SIGMA)
    torch.testing.assert_close(both, expected)
    torch.testing.assert_close(uncond, X - SIGMA * 0.1)


def test_a_single_weight_scales_the_guidance() -> None:
    denoiser = composed(FakeUNet(), [always(condition(0.5), 0.5)], always(condition(0.1)), 2.0)
    torch.testing.assert_close(denoiser(X, SIGMA), X - SIGMA * 0.5)
    weighted = composed(FakeUNet(), [always(condition(0.5), 2.0)], always(condition(0.1)), 1.0)
    torch.testing.assert_close(weighted(X, SIGMA), X - SIGMA * (0.1 + 2 * (0.5 - 0.1)))


def skipping(unet: FakeUNet, positive: list[Timeline], scale: float, skip: Any, calls: int = 0) -> GuidedUNet:
    negative = always(condition(0.1))
    return GuidedUNet(unet, float, "epsilon", positive, negative, scale, torch.float32, calls=calls, skip=skip)


def test_a_call_may_leave_the_negative_prompt_out() -> None:
    unet, asked = FakeUNet(), []

    def skip(call: int, sigma: float) -> bool:
        asked.append((call, sigma))
        return call % 2 == 1

    denoiser = skipping(unet, [always(condition(0.5))], 3.0, skip, calls=4)
    guided_x0, alone = X - SIGMA * (0.1 + 3.0 * (0.5 - 0.1)), X - SIGMA * 0.5
    torch.testing.assert_close(denoiser(X, SIGMA), guided_x0)
    assert torch.equal(denoiser(X, SIGMA), alone)
    torch.testing.assert_close(denoiser.guided_and_uncond(X, SIGMA)[1], X - SIGMA * 0.1)
    assert all(torch.equal(part, alone) for part in denoiser.guided_and_uncond(X, SIGMA))
    assert asked == [(call, SIGMA) for call in (4, 5, 6, 7)]
    assert [len(call["sample"]) for call in unet.calls] == [4, 2, 4, 2]


def test_several_prompts_without_the_negative_one_are_summed_from_the_first() -> None:
    """At scale 1, as in A1111."""
    unet = FakeUNet()
    positive = [always(condition(0.5), 0.7), always(condition(0.9), -0.5), always(condition(0.2), 2.0)]
    denoiser = skipping(unet, positive, 3.0, lambda call, sigma: True)
    both, uncond = denoiser.guided_and_uncond(X, SIGMA)
    torch.testing.assert_close(both, X - SIGMA * (0.5 - 0.5 * (0.9 - 0.5) + 2.0 * (0.2 - 0.5)))
    torch.testing.assert_close(uncond, X - SIGMA * 0.5)
    assert [len(call["sample"]) for call in unet.calls] == [6]


def test_prompts_change_with_the_calls_of_the_model() -> None:
    first, second, negative = condition(0.5), condition(0.7), condition(0.1)
    edited = Timeline(((1, first), (3, second)))
    denoiser = composed(FakeUNet(), [edited], Timeline(((0, negative), (9, condition(0.0)))), 3.0)
    wanted = [(0.5, 0.1), (0.5, 0.0), (0.7, 0.0), (0.7, 0.0), (0.5, 0.0)]  # past its end, the first again
    for positive_value, negative_value in wanted:
        expected = X - SIGMA * (negative_value + 3.0 * (positive_value - negative_value))
        torch.testing.assert_close(denoiser(X, SIGMA), expected)


def test_a_branch_counts_its_calls_from_where_it_begins() -> None:
    unet = FakeUNet()
    edited = Timeline(((1, condition(0.25)), (9, condition(0.5))))
    settings = (unet, lambda sigma: 100 * sigma, "epsilon", [edited], None, 1.0, torch.float32)
    for begun, seen in ((0, [0.25, 0.25, 0.5]), (1, [0.25, 0.5, 0.5]), (2, [0.5, 0.5, 0.5])):
        unet.calls.clear()
        denoiser = GuidedUNet(*settings, calls=begun)  # type: ignore[arg-type]
        for _ in seen:
            denoiser(X, SIGMA)
        assert [float(call["states"][0, 0, 0]) for call in unet.calls] == seen
