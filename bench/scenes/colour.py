"""Colours by rule, without a network: what an object is painted in, and how much of a picture has a colour. All in CIE L*a*b*."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from studio.training.data.scenes.vocabulary import COLOURS
from studio.training.methods.judge.judge import Picture

Lab = npt.NDArray[np.float64]

_UNLIKE = 22.0
"""Distance in L*a*b* from which on a pixel does not belong to the background."""
_LEAST = 0.004
"""Share of the picture that an object covers at least."""


def object_colour(picture: Picture) -> str:
    """The colour word, one of ``COLOURS``, that most pixels of a single object are nearest to; empty when no object stands out.

    ``picture`` is uint8 RGB (s, s, 3), a square.
    The object is what differs from all that is seen at the left and the right edge at about the same height: backgrounds of drawn scenes
    change from top to bottom far more than from side to side.
    """
    lab, side = _lab(picture), picture.shape[0]
    band, reach = max(2, side // 32), max(2, side // 20)
    edges = np.concatenate([lab[:, :band:2], lab[:, -band::2]], axis=1)
    padded = np.pad(edges, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    offsets = range(0, 2 * reach + 1, max(1, reach // 2))
    near = np.concatenate([padded[offset : offset + side] for offset in offsets], axis=1)
    middle = slice(side // 8, side - side // 8)
    pixels, behind = lab[middle, middle], near[middle]
    unlike = np.min([np.linalg.norm(pixels - behind[:, i, None], axis=-1) for i in range(behind.shape[1])], axis=0)
    inside = pixels[unlike > _UNLIKE]
    if len(inside) < _LEAST * side**2:
        return ""
    return max(COLOURS, key=_shares(inside).__getitem__)


def colour_share(picture: Picture, colour: str) -> float:
    """Share, 0 to 1, of the pixels of ``picture`` (uint8 RGB (h, w, 3)) that are nearer to ``colour`` than to any other word of ``COLOURS``.

    Raises ``KeyError`` for a word that is none of these.
    """
    return _shares(_lab(picture).reshape(-1, 3))[colour]


def redness(picture: Picture) -> float:
    """Mean a* of ``picture`` (uint8 RGB (h, w, 3)): from green (pure sRGB green has -86) to red (pure red has 80)."""
    return float(_lab(picture)[..., 1].mean())


def _shares(pixels: Lab) -> dict[str, float]:
    """By colour word, the share of ``pixels`` (n, 3) whose nearest tone is one of that colour."""
    names, tones = _tones()
    nearest = np.linalg.norm(pixels[:, None] - tones[None], axis=-1).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(names))
    return {
        name: float(counts[[i for i, other in enumerate(names) if other == name]].sum() / len(pixels))
        for name in COLOURS
    }


def _tones() -> tuple[list[str], Lab]:
    """Each colour in shade and light as well as pure; black and white as they are."""
    names: list[str] = []
    tones: list[npt.NDArray[np.float64]] = []
    for name, colour in COLOURS.items():
        tone = np.array(colour, dtype=np.float64)
        shades = [tone] if name in ("black", "white") else [tone * 0.62, tone, tone + (255 - tone) * 0.3]
        names.extend([name] * len(shades))
        tones.extend(shades)
    return names, _lab(np.stack(tones))


def _lab(rgb: npt.NDArray[Any]) -> Lab:
    """CIE L*a*b* (D65) of sRGB values 0 to 255, last axis 3."""
    linear = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    to_xyz = np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    xyz = linear @ to_xyz / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )
