"""Faces out of a picture and back: known matrices, OpenCV's pixels, and nothing but interpolation lost on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from studio.engine.faces.geometry import AROUND, TEMPLATE, cropped, inverse, pasted, similarity, soft_edge, template
from tests.engine.faces.made import vectors

REFERENCE = vectors()


def waves() -> np.ndarray:
    """A smooth picture of whole numbers."""
    y, x = np.mgrid[:220, :260]
    planes = [127 + 100 * np.sin(x / 17 + c) * np.cos(y / 23 - c) for c in range(3)]
    return np.stack(planes, -1).round().clip(0, 255)


def turned(points: np.ndarray, angle: float, scale: float, move: tuple[float, float]) -> np.ndarray:
    """Points rotated and scaled about the origin, then moved."""
    sine, cosine = math.sin(angle) * scale, math.cos(angle) * scale
    return points @ np.array([[cosine, sine], [-sine, cosine]]) + move


@pytest.mark.parametrize(
    "angle, scale, move", [(0.0, 1.0, (0.0, 0.0)), (0.7, 0.3, (40.0, -8.0)), (-2.5, 3.0, (1.0, 2.0))]
)
def test_landmarks_that_fit_give_the_matrix_that_moved_them(
    angle: float, scale: float, move: tuple[float, float]
) -> None:
    sine, cosine = math.sin(angle) * scale, math.cos(angle) * scale
    expected = [[cosine, -sine, move[0]], [sine, cosine, move[1]]]
    points = template(512)
    assert np.allclose(similarity(points, turned(points, angle, scale, move)), expected, atol=1e-9)
    there = np.array(expected)
    back = inverse(there)
    assert np.allclose(np.vstack([there, [0, 0, 1]]) @ np.vstack([back, [0, 0, 1]]), np.eye(3), atol=1e-9)


def test_other_landmarks_give_the_least_squares() -> None:
    """Beside the normal equations of the four unknowns, solved by numpy."""
    draw = np.random.default_rng(3)
    points, targets = draw.uniform(0, 300, (5, 2)), draw.uniform(0, 512, (5, 2))
    rows = [row for x, y in points for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, right, down = np.linalg.lstsq(np.array(rows), targets.ravel(), rcond=None)[0]
    assert np.allclose(similarity(points, targets), [[a, -b, right], [b, a, down]])


def test_a_crop_is_opencv_s() -> None:
    matrix = similarity(REFERENCE["landmarks"], template(512))
    assert np.allclose(matrix, REFERENCE["matrix"], atol=1e-3)  # theirs is found by trying, to fewer digits
    crop = cropped(waves(), matrix, 512)
    assert np.abs(crop[4::16, 4::16] - REFERENCE["crop"]).max() < 0.51  # theirs is rounded


def test_a_face_comes_back_where_opencv_puts_it() -> None:
    picture, matrix = waves(), similarity(REFERENCE["landmarks"], template(512))
    result = pasted(picture, 255 - cropped(picture, matrix, 512).round(), matrix)
    y, x = np.mgrid[:220, :260]
    u, v = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in range(2))
    depth = np.minimum(np.minimum(u, 511 - u), np.minimum(v, 511 - v))
    part = (slice(2, None, 4), slice(2, None, 4))
    inside, outside = (depth > 90)[part], (depth < 0)[part]
    assert np.abs(result[part] - REFERENCE["pasted"])[inside].max() < 2  # theirs is rounded, then cut to whole numbers
    assert inside.sum() > 200
    assert np.abs(result[part] - REFERENCE["pasted"])[outside].max() <= 1
    assert np.array_equal(result[depth < 0], picture[depth < 0])


def test_a_face_that_nobody_touched_changes_nothing() -> None:
    picture = waves()
    upright = similarity(np.array(TEMPLATE) * 0.25 + [30, 40], template(128))
    assert np.abs(pasted(picture, cropped(picture, upright, 128), upright) - picture).max() < 1e-6
    slanted = similarity(turned(template(512), 0.4, 0.22, (90, 20)), template(512))
    again = pasted(picture, cropped(picture, slanted, 512), slanted)
    assert 0 < np.abs(again - picture).max() < 0.5
    assert picture.max() > 200  # what was given is not written to


def test_beyond_the_picture_is_grey_and_a_part_outside_is_dropped() -> None:
    picture = waves()
    hanging = similarity(np.array(TEMPLATE) * 0.25 - [64, 20], template(128))
    crop = cropped(picture, hanging, 128)
    assert np.allclose(crop[:, :60], AROUND) and np.allclose(crop[25:, 70:90], picture[5:108, 6:26])
    result = pasted(picture, np.full((128, 128, 3), 255.0), hanging)
    assert np.allclose(result[40, 0], 255) and np.array_equal(result[:, 70:], picture[:, 70:])
    away = similarity(np.array(TEMPLATE) * 0.25 - [600, 0], template(128))
    assert np.array_equal(pasted(picture, np.zeros((128, 128, 3)), away), picture)


def test_the_edge_is_soft_and_the_same_at_every_size() -> None:
    for size in (64, 512):
        edge = size / 20
        places = np.array([-5, 0, edge / 2, edge, 2 * edge, size / 2])
        cover = soft_edge(places, size)
        assert np.allclose(cover[[0, 1, 3, 4, 5]], [0, 0, 0.5, 1, 1], atol=1e-4)
        assert 0.02 < cover[2] < 0.1
        assert np.allclose(soft_edge(size - 1 - places, size), cover)
