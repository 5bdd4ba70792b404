"""Structural similarity against its definition, written out window by window, and against closed forms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from studio.evaluation.similarity import largest_difference, structural_similarity

Picture = npt.NDArray[np.uint8]


def picture(seed: int, height: int = 24, width: int = 17) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def by_definition(one: Picture, other: Picture) -> float:
    """Equation 13 of Wang et al. 2004, at every position where the 11x11 window fits, for every channel."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for row in range(one.shape[0] - 10):
        for column in range(one.shape[1] - 10):
            for channel in range(3):
                x, y = (p[row : row + 11, column : column + 11, channel].astype(float) for p in (one, other))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


def test_it_is_what_the_paper_defines() -> None:
    one = picture(1)
    near = np.clip(one.astype(int) + np.random.default_rng(2).integers(-9, 10, one.shape), 0, 255).astype(np.uint8)
    for other in (near, picture(3)):
        assert structural_similarity(one, other) == pytest.approx(by_definition(one, other), abs=1e-10)


def test_flat_pictures_differ_by_their_brightness_only() -> None:
    dark, light = np.full((16, 16, 3), 60, np.uint8), np.full((16, 16, 3), 180, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert structural_similarity(dark, light) == pytest.approx((2 * 60 * 180 + c1) / (60**2 + 180**2 + c1))


def test_equal_pictures_are_one_and_others_less() -> None:
    one = picture(5)
    other = one.copy()
    other[12, 8, 1] ^= 1
    assert structural_similarity(one, one) == 1
    assert structural_similarity(one, other) < 1
    assert (largest_difference(one, one), largest_difference(one, other)) == (0, 1)


def test_the_largest_difference_has_no_sign_and_no_overflow() -> None:
    black, white = np.zeros((11, 11, 3), np.uint8), np.full((11, 11, 3), 255, np.uint8)
    assert largest_difference(black, white) == largest_difference(white, black) == 255


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="17x24 cannot be compared with one of 17x25"):
        largest_difference(picture(1), picture(1, 25))
    with pytest.raises(ValueError, match="11x11"):
        structural_similarity(picture(1, 10), picture(1, 10))
