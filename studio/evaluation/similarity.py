"""How alike two pictures of the same size are: the largest difference, and structural similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Picture = npt.NDArray[np.uint8]
    """RGB, (height, width, 3)."""

_RANGE = 255.0
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
_DEVIATION = 1.5
_REACH = 5
"""Half the window: 11x11 pixels."""


def largest_difference(one: Picture, other: Picture) -> int:
    """0 to 255. Raises ``ValueError`` for pictures of different sizes."""
    _check(one, other)
    import numpy as np

    return int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())


def structural_similarity(one: Picture, other: Picture) -> float:
    """Mean SSIM over positions and channels, at most 1, which only equal pictures have.

    Wang, Bovik, Sheikh & Simoncelli 2004, equation 13, with their constants and their Gaussian window of 11x11 (deviation 1.5); positions
    where the window would reach over the edge do not count. Raises ``ValueError`` for pictures of different sizes, or with a side below 11.
    """
    _check(one, other)
    if min(one.shape[:2]) <= 2 * _REACH:
        raise ValueError(f"pictures of {one.shape[1]}x{one.shape[0]} are too small: at least 11x11 are needed")
    x, y = one.astype("float64"), other.astype("float64")
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    )
    return float(similarity.mean())


def _blurred(picture: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted means under the window, without the margin."""
    from scipy.ndimage import gaussian_filter

    smooth: npt.NDArray[np.float64] = gaussian_filter(
        picture, (_DEVIATION, _DEVIATION, 0), truncate=_REACH / _DEVIATION
    )
    return smooth[_REACH:-_REACH, _REACH:-_REACH]


def _check(one: Picture, other: Picture) -> None:
    if one.shape != other.shape:
        raise ValueError(
            f"a picture of {one.shape[1]}x{one.shape[0]} cannot be compared with one of {other.shape[1]}x{other.shape[0]}"
        )
