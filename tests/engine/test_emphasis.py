"""Emphasis against the vectors, and what must hold for any states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studio.engine.emphasis import apply_emphasis
from tests.vector_files import load_json, vector_path


def cases() -> list[tuple[str, str, str, str, str]]:
    return [
        (case["name"], mode, case["z"], case["multipliers"], array)
        for case in load_json("emphasis.json")["cases"]
        for mode, array in case["results"].items()
    ]


@pytest.mark.parametrize("name, mode, states, weights, expected", cases())
def test_vectors(name: str, mode: str, states: str, weights: str, expected: str) -> None:
    arrays = np.load(vector_path("emphasis.npz"))
    got = apply_emphasis(mode, torch.from_numpy(arrays[states]), torch.from_numpy(arrays[weights]))  # type: ignore[arg-type]
    np.testing.assert_allclose(got.numpy(), arrays[expected], rtol=1e-4, atol=1e-5)


@given(st.integers(0, 1000), st.sampled_from(["Original", "No norm", "Ignore", "None"]))
def test_weights_of_one_change_nothing(seed: int, mode: str) -> None:
    states = torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(apply_emphasis(mode, states, torch.ones(1, 77)), states)  # type: ignore[arg-type]


def test_original_keeps_the_mean_and_no_norm_does_not() -> None:
    states, weights = torch.rand(1, 77, 8) + 1, torch.rand(1, 77) + 1
    torch.testing.assert_close(apply_emphasis("Original", states, weights).mean(), states.mean())
    assert apply_emphasis("No norm", states, weights).mean() > states.mean() * 1.2


def test_weights_that_leave_no_mean_give_numbers() -> None:
    assert apply_emphasis("Original", torch.ones(1, 77, 8), torch.zeros(1, 77)).isfinite().all()


def test_half_precision_states_are_weighted_in_full_precision() -> None:
    states = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(1))
    weights = torch.full((1, 77), 1.1)
    got = apply_emphasis("Original", states.bfloat16(), weights)
    torch.testing.assert_close(got, apply_emphasis("Original", states.bfloat16().float(), weights))
