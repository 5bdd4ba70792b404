"""From a picture to its faces: the detector's answers as boxes and landmarks, each face once.

The numbers are those of RetinaFace with ResNet-50 as facexlib runs it, and of the way A1111 asks it: on the picture brought to a shorter side of
640 pixels, faces of at least 97 % and with at least 5 pixels between the eyes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

SHORTER_SIDE = 640
SCORE, OVERLAP = 0.97, 0.4
EYE_DISTANCE = 5.0
MEAN = (104.0, 117.0, 123.0)
"""Blue, green, red."""
STRIDES = (8, 16, 32)
SIDES = ((16, 32), (64, 128), (256, 512))
"""Pixels: how far apart the places of each level are, and the sizes of face that are looked for there."""
CENTRE, SIZE = 0.1, 0.2
"""What corrections of a place, and of a side's logarithm, are multiplied with."""


@dataclass(frozen=True)
class Face:
    """In pixels of the picture: the box (left, top, right, bottom), and [5, 2] landmarks: eyes, nose, corners of the mouth, left before right."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float64]


@torch.inference_mode()
def find_faces(picture: Image.Image, detector: nn.Module, device: torch.device) -> list[Face]:
    """The faces of an RGB picture, surest first; `detector` is a `RetinaFace`."""
    scale = min(picture.size) / SHORTER_SIDE
    width, height = (max(1, int(side / scale)) for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS), np.float32)
    planes = torch.from_numpy(pixels[..., ::-1] - np.array(MEAN, np.float32)).permute(2, 0, 1)[None]
    boxes, scores, landmarks = detector(planes.to(device))
    found = decoded(boxes.cpu(), scores.cpu(), landmarks.cpu(), (width, height))
    return [face for face in (_scaled(face, scale) for face in found) if _eye_distance(face) >= EYE_DISTANCE]


def anchors(size: tuple[int, int]) -> Tensor:
    """Places and sizes [N, 4] (x, y, width, height) that a picture of `size`, (width, height), is searched at, as parts of it; float32."""
    width, height = size
    levels = []
    for stride, sides in zip(STRIDES, SIDES, strict=True):
        y, x, side = torch.meshgrid(
            (torch.arange(math.ceil(height / stride), dtype=torch.float64) + 0.5) * stride / height,
            (torch.arange(math.ceil(width / stride), dtype=torch.float64) + 0.5) * stride / width,
            torch.tensor(sides, dtype=torch.float64),
            indexing="ij",
        )
        levels.append(torch.stack([x, y, side / width, side / height], dim=-1).view(-1, 4))
    return torch.cat(levels).float()


def decoded(boxes: Tensor, scores: Tensor, landmarks: Tensor, size: tuple[int, int]) -> list[Face]:
    """What the network's answers mean for a picture of `size`: faces that are sure enough, of those that overlap the surest one.

    Takes corrections of boxes [N, 4] and landmarks [N, 10] of the `anchors`, and the probabilities [N]; gives pixels.
    """
    sure = torch.nonzero(scores > SCORE)[:, 0]
    order = sure[scores[sure].argsort(descending=True, stable=True)]
    searched = anchors(size)[order]
    places, sides = searched[:, :2], searched[:, 2:]
    unit = torch.tensor(size)
    middles = places + boxes[order, :2] * CENTRE * sides
    halves = sides * torch.exp(boxes[order, 2:] * SIZE) / 2
    corners = torch.cat([middles - halves, middles + halves], dim=1) * unit.repeat(2)
    points = (places[:, None] + landmarks[order].view(-1, 5, 2) * CENTRE * sides[:, None]) * unit
    return [
        Face(
            box=tuple(corners[i].tolist()),
            score=float(scores[order[i]]),
            landmarks=points[i].double().numpy(),
        )
        for i in without_overlaps(corners)
    ]


def without_overlaps(boxes: Tensor) -> Sequence[int]:
    """Which of boxes [N, 4], the best one first, stay when those go that share more than `OVERLAP` of their common area with a better one."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, kept = torch.arange(len(boxes)), []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low = torch.maximum(boxes[left, :2], boxes[best, :2])
        high = torch.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        left = left[shared <= OVERLAP * (areas[left] + areas[best] - shared)]
    return kept


def _scaled(face: Face, factor: float) -> Face:
    left, top, right, bottom = (side * factor for side in face.box)
    return Face((left, top, right, bottom), face.score, face.landmarks * factor)


def _eye_distance(face: Face) -> float:
    return float(np.linalg.norm(face.landmarks[0] - face.landmarks[1]))
