"""A style that no drawn scene has, by a rule on the pixels: an old colour print. Its inks have faded, its paper has yellowed and shows as a margin.

Colours: dark violet to cream by brightness, and half of what told a colour from its brightness: an affine map of the RGB cube onto a much
smaller body. A picture is in the style when its pixels lie in that body and its margin has the colour of the paper.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

INK, PAPER = np.array([70.0, 36.0, 96.0]), np.array([255.0, 232.0, 176.0])
"""What black and white become."""
KEPT = 0.5
"""Share of a colour's difference from the gray of its brightness that is left."""
MARGIN = 1 / 16
"""Width of the paper on each side, as a share of the picture's side: 8 pixels of 128."""
WEIGHTS = np.array([0.299, 0.587, 0.114])
_MAP = np.outer(PAPER - INK, WEIGHTS) + 255 * KEPT * (np.eye(3) - np.outer(np.ones(3), WEIGHTS))
_STEPS = 60


class Distance(NamedTuple):
    """How far a picture is from the style, each a mean over pixels as a share of the RGB cube's side; 0 is the style.

    ``colours`` is that of the pixels inside of the margin to the nearest colour that the rule can give, ``margin`` that of the others to the paper.
    """

    colours: float
    margin: float


def printed(picture: Picture) -> Picture:
    """``picture`` (h, w, 3) as an old print, of the same size: its margin is covered, nothing is moved."""
    toned = INK + picture.astype(np.float64) / 255 @ _MAP.T
    toned[_margin(picture)] = PAPER
    return np.rint(toned.clip(0, 255)).astype(np.uint8)


def distance(picture: Picture) -> Distance:
    """See ``Distance``. A printed picture has at most what rounding explains, 0.003."""
    outside = _margin(picture)
    pixels = picture.astype(np.float64)
    paper = np.linalg.norm(pixels[outside] - PAPER, axis=-1)
    return Distance(float(_to_body(pixels[~outside]).mean() / 255), float(paper.mean() / 255))


def _margin(picture: Picture) -> npt.NDArray[np.bool_]:
    """Which pixels (h, w) the paper covers."""
    width = max(1, round(MARGIN * min(picture.shape[:2])))
    outside = np.ones(picture.shape[:2], dtype=np.bool_)
    outside[width:-width, width:-width] = False
    return outside


def _to_body(pixels: Floats) -> Floats:
    """Distance of ``pixels`` (n, 3) to the image of the cube: least squares within bounds, by accelerated projected gradients (Nesterov)."""
    wanted, step = pixels - INK, 1 / np.linalg.norm(_MAP, 2) ** 2
    found = (wanted @ np.linalg.inv(_MAP).T).clip(0, 1)
    ahead = found
    for count in range(_STEPS):
        before, found = found, (ahead + step * (wanted - ahead @ _MAP.T) @ _MAP).clip(0, 1)
        ahead = found + count / (count + 3) * (found - before)
    left: Floats = np.linalg.norm(wanted - found @ _MAP.T, axis=-1)
    return left
