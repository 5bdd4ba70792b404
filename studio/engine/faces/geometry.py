"""Faces out of a picture and back: turned upright into a square, and put into their place with a soft edge.

Points are (x, y) in pixels; whole numbers are the middles of pixels, as in OpenCV, which facexlib uses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
TEMPLATE_SIZE = 512
TEMPLATE = (
    (192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935), (201.26117, 371.41043), (313.08905, 371.15118),
)  # fmt: skip
"""Where the five landmarks lie in the square of 512 pixels: the average of FFHQ's faces, as facexlib has it."""
AROUND = (132.0, 133.0, 135.0)
"""RGB of what lies beyond the picture's edge."""
EDGE = 1 / 20
"""Part of the square's side: the middle of its soft edge lies so far inside, and the edge is twice as wide."""
SOFTNESS = 0.3
"""Standard deviation of the edge, as part of half its width."""


def template(size: int) -> Floats:
    """Where the landmarks [5, 2] lie in a square of `size` pixels."""
    return np.array(TEMPLATE) * (size / TEMPLATE_SIZE)


def similarity(points: Floats, targets: Floats) -> Floats:
    """The rotation, scaling and move [2, 3] that bring `points` [N, 2] nearest to `targets`, by least squares.

    In closed form (Umeyama, 1991): with points as complex numbers z and w, without their means, w = a z has its least error at
    a = Σ z̄ w / Σ |z|². The points must not all be one.
    """
    z, w = (array[:, 0] + 1j * array[:, 1] for array in (points, targets))
    middle, aim = z.mean(), w.mean()
    turn = np.vdot(z - middle, w - aim) / np.vdot(z - middle, z - middle).real
    move = aim - turn * middle
    return np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])


def inverse(matrix: Floats) -> Floats:
    """The way back [2, 3]."""
    turned = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turned, -turned @ matrix[:, 2]])


def cropped(picture: Floats, matrix: Floats, size: int) -> Floats:
    """The square [size, size, 3] that `matrix` maps its part of `picture` [H, W, 3] to; `AROUND` where the picture does not reach."""
    y, x = np.mgrid[:size, :size]
    return _sampled(picture, _moved(inverse(matrix), x, y), np.array(AROUND))


def pasted(picture: Floats, face: Floats, matrix: Floats) -> Floats:
    """A copy of `picture` [H, W, 3] with the square `face`, which `matrix` maps its place to; at the edge one fades into the other."""
    size, (height, width) = len(face), picture.shape[:2]
    ends = np.array([-1.0, size])
    corners = _moved(inverse(matrix), *(side.ravel() for side in np.meshgrid(ends, ends)))
    left, top = (max(0, math.floor(side)) for side in corners.min(1))
    right, bottom = (
        min(limit, math.ceil(side) + 1) for side, limit in zip(corners.max(1), (width, height), strict=True)
    )
    result = picture.copy()
    if left >= right or top >= bottom:
        return result
    y, x = np.mgrid[top:bottom, left:right]
    places = _moved(matrix, x, y)
    cover = (soft_edge(places[0], size) * soft_edge(places[1], size))[..., None]
    part = result[top:bottom, left:right]
    part += cover * (_sampled(face, places, np.zeros(3)) - part)
    return result


def soft_edge(places: Floats, size: int) -> Floats:
    """How far, 0 to 1, a square of `size` covers what lies at these places along one side: nothing at its edge, half at `EDGE`, all from twice that on.

    A step that is blurred with a Gaussian cut off at the edge, as facexlib blurs its mask.
    """
    inside = np.minimum(places, size - 1 - places) / (EDGE * size) - 1
    heights = np.linspace(-1, 1, 257)
    steps = np.array([math.erf(height / (SOFTNESS * math.sqrt(2))) for height in heights])
    covered: Floats = np.interp(inside, heights, (steps / steps[-1] + 1) / 2)
    return covered


def _moved(matrix: Floats, x: Floats, y: Floats) -> Floats:
    """Where `matrix` maps points to: [2, ...]."""
    return np.tensordot(matrix[:, :2], np.stack([x, y]), 1) + matrix[:, 2].reshape(2, *[1] * np.ndim(x))


def _sampled(picture: Floats, places: Floats, around: Floats) -> Floats:
    """Colours [..., 3] at `places` [2, ...] between the pixels of `picture`, linear in both directions; `around` it is the colour of that name."""
    height, width = picture.shape[:2]
    wider = np.empty((height + 2, width + 2, 3), picture.dtype)
    wider[:] = around
    wider[1:-1, 1:-1] = picture
    x, y = np.clip(places[0] + 1, 0, width + 1), np.clip(places[1] + 1, 0, height + 1)
    left, top = np.minimum(x.astype(int), width), np.minimum(y.astype(int), height)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = wider[top, left] * (1 - across) + wider[top, left + 1] * across
    lower = wider[top + 1, left] * (1 - across) + wider[top + 1, left + 1] * across
    between: Floats = upper * (1 - down) + lower * down
    return between
