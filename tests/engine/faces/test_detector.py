"""Answers of the detector as faces: beside facexlib's on the same numbers, and on pictures of all sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from studio.engine.faces import detector
from studio.engine.faces.detector import anchors, decoded, find_faces, without_overlaps
from tests.engine.faces.made import vectors

SIZE = (150, 101)
REFERENCE = vectors()
LANDMARKS = np.array([[230.0, 200], [270, 204], [250, 225], [235, 244], [268, 246]])


class OneFace(nn.Module):
    """A detector that is sure of one face in the middle of what it is shown; `asked` are the pictures."""

    def __init__(self, landmarks: np.ndarray, size: tuple[int, int]) -> None:
        super().__init__()
        self.landmarks, self.size = torch.from_numpy(landmarks / size), size
        self.asked: list[Tensor] = []

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.asked.append(picture)
        places = anchors((picture.shape[3], picture.shape[2]))
        scores = torch.full((len(places),), 0.5)
        best = (places[:, :2] - 0.5).norm(dim=1).argmin()
        scores[best] = 0.99
        marks = (self.landmarks - places[:, None, :2]) / (0.1 * places[:, None, 2:])
        return torch.zeros(len(places), 4), scores, marks.flatten(1).float()


def test_places_and_faces_are_facexlib_s() -> None:
    places = REFERENCE["priors"]
    assert np.array_equal(anchors(SIZE).numpy(), places)
    draw = np.random.RandomState(13)
    boxes = torch.from_numpy((draw.standard_normal((len(places), 4)) * 0.8).astype(np.float32))
    scores = torch.from_numpy(draw.uniform(0, 1, len(places)).astype(np.float32))
    marks = torch.from_numpy(draw.standard_normal((len(places), 10)).astype(np.float32))
    scores = torch.where(scores > 0.75, 0.97 + (scores - 0.75) * 0.1, scores)
    found = decoded(boxes, scores, marks, SIZE)
    assert 100 < len(found) == len(REFERENCE["faces"]) < (scores > 0.97).sum()
    for face, expected in zip(found, REFERENCE["faces"], strict=True):
        assert np.allclose([*face.box, face.score, *face.landmarks.ravel()], expected, atol=1e-4)


def test_of_boxes_that_overlap_the_first_stays() -> None:
    def square(left: float) -> list[float]:
        return [left, 0, left + 100, 100]

    # Two squares share (100 - d) / (100 + d): 0.4 at d = 42.86.
    assert list(without_overlaps(torch.tensor([square(0), square(42), square(43), square(200), square(100)]))) == [
        0,
        2,
        3,
        4,
    ]
    assert list(without_overlaps(torch.empty(0, 4))) == []


@pytest.mark.parametrize("size", [(500, 450), (1000, 640), (300, 1300)])
def test_a_picture_is_searched_at_one_size_and_its_faces_are_in_its_own_pixels(size: tuple[int, int]) -> None:
    network = OneFace(LANDMARKS, size)
    (face,) = find_faces(Image.new("RGB", size, (10, 20, 30)), network, torch.device("cpu"))
    assert np.allclose(face.landmarks, LANDMARKS, atol=1.5) and face.score == pytest.approx(0.99)
    shown = network.asked[0]
    assert min(shown.shape[2:]) == detector.SHORTER_SIDE
    assert shown.shape[3] / shown.shape[2] == pytest.approx(size[0] / size[1], abs=0.01)
    assert torch.allclose(shown[0, :, 50, 50], torch.tensor([30.0 - 104, 20 - 117, 10 - 123]))


def test_a_face_too_small_to_restore_is_left_out() -> None:
    size = (1280, 1280)
    for distance, count in ((4.8, 0), (5.2, 1)):
        marks = np.array([[300.0, 300], [300 + distance, 300], [302, 303], [300, 306], [304, 306]])
        found = find_faces(Image.new("RGB", size), OneFace(marks, size), torch.device("cpu"))
        assert len(found) == count
