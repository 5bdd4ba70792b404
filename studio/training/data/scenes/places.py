"""Backgrounds: plain ones with a breath of light, and twelve drawn places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from studio.errors import TrainingError

Colour = tuple[float, float, float]
Painter = Callable[[np.random.Generator, int], Image.Image]


def paint_plain(colour: Colour, rng: np.random.Generator, side: int) -> Image.Image:
    """One colour, a little lighter at the top than at the bottom."""
    tone = np.array(colour) + rng.uniform(-4, 4)
    slope = rng.uniform(0, 5)
    return _gradient([(0.0, tuple(tone + slope)), (1.0, tuple(tone - slope))], side)


def paint_place(name: str, rng: np.random.Generator, side: int) -> Image.Image:
    """A drawn place by its name in ``vocabulary.PLACES``; raises ``TrainingError`` for another name."""
    painters: dict[str, Painter] = {
        "beach": _beach,
        "sea": _sea,
        "snow": _snow,
        "night": _night,
        "grass": _grass,
        "forest": _forest,
        "desert": _desert,
        "space": _space,
        "city": _city,
        "sunset": _sunset,
        "sky": _sky,
        "mountains": _mountains,
    }
    if name not in painters:
        raise TrainingError(f"No place {name!r} can be drawn; known: {', '.join(painters)}")
    return painters[name](rng, side)


def _gradient(stops: list[tuple[float, Colour]], side: int) -> Image.Image:
    """Vertical colour ramp through (height, colour) stops, heights rising from 0 to 1."""
    heights = [stop for stop, _ in stops]
    y = np.linspace(0, 1, side)
    columns = [np.interp(y, heights, [colour[channel] for _, colour in stops]) for channel in range(3)]
    rows = np.stack(columns, axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None, :], (side, side, 3))))


def _wave(rng: np.random.Generator, side: int, height: float, swing: float, waves: float) -> list[tuple[float, float]]:
    """Points of a hill line from left to right, at about ``height``, as pixel positions."""
    x = np.linspace(0, 1, 33)
    y = (
        height
        + swing * np.sin(2 * np.pi * (waves * x + rng.random()))
        + 0.3 * swing * np.sin(2 * np.pi * (2.7 * waves * x + rng.random()))
    )
    return [(float(a) * side, float(b) * side) for a, b in zip(x, y, strict=True)]


def _land(picture: Image.Image, line: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    side = picture.width
    ImageDraw.Draw(picture).polygon([(0.0, float(side)), *line, (float(side), float(side))], fill=colour)


def _dots(
    picture: Image.Image,
    rng: np.random.Generator,
    count: int,
    colour: tuple[int, int, int],
    top: float,
    bottom: float,
    radius: float,
) -> None:
    pen, side = ImageDraw.Draw(picture), picture.width
    places: npt.NDArray[np.float64] = rng.random((count, 3))
    for x, y, size in places:
        r = radius * side * (0.5 + size)
        cx, cy = x * side, (top + y * (bottom - top)) * side
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)


def _clouds(
    picture: Image.Image,
    rng: np.random.Generator,
    count: int,
    top: float,
    bottom: float,
    colour: tuple[int, int, int] = (250, 252, 255),
) -> None:
    pen, side = ImageDraw.Draw(picture), picture.width
    for _ in range(count):
        cx, cy = rng.uniform(0.05, 0.95) * side, rng.uniform(top, bottom) * side
        width = rng.uniform(0.10, 0.18) * side
        for dx, dy, r in ((-0.8, 0.1, 0.45), (0.0, -0.15, 0.62), (0.8, 0.1, 0.5), (0.1, 0.2, 0.6)):
            pen.ellipse(
                (cx + (dx - r) * width, cy + (dy - r) * width, cx + (dx + r) * width, cy + (dy + r) * width),
                fill=colour,
            )


def _beach(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (118, 196, 246)), (0.38, (206, 236, 252)), (1, (206, 236, 252))], side)
    _land(picture, [(0, 0.38 * side), (side, 0.38 * side)], (36, 142, 206))
    _land(picture, _wave(rng, side, 0.585, 0.012, 1.5), (232, 246, 250))
    _land(picture, _wave(rng, side, 0.61, 0.015, 1.2), (240, 214, 152))
    _dots(picture, rng, 10, (222, 192, 126), 0.68, 0.98, 0.006)
    return picture


def _sea(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (150, 212, 250)), (0.36, (216, 240, 252)), (1, (216, 240, 252))], side)
    for height, colour in (
        (0.38, (40, 126, 200)),
        (0.54, (28, 106, 184)),
        (0.70, (20, 88, 164)),
        (0.85, (14, 70, 142)),
    ):
        _land(picture, _wave(rng, side, height, 0.018, 3.0), colour)
    return picture


def _snow(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (158, 184, 212)), (0.6, (206, 222, 236)), (1, (206, 222, 236))], side)
    _land(picture, _wave(rng, side, 0.58, 0.03, 1.0), (226, 236, 246))
    _land(picture, _wave(rng, side, 0.70, 0.03, 0.8), (246, 250, 254))
    _dots(picture, rng, 34, (255, 255, 255), 0.0, 0.7, 0.009)
    return picture


def _night(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (10, 16, 48)), (0.8, (38, 52, 108)), (1, (38, 52, 108))], side)
    _dots(picture, rng, 26, (246, 242, 206), 0.0, 0.7, 0.006)
    _land(picture, _wave(rng, side, 0.80, 0.025, 0.9), (16, 26, 44))
    return picture


def _grass(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (126, 204, 250)), (0.5, (214, 240, 252)), (1, (214, 240, 252))], side)
    _clouds(picture, rng, 2, 0.08, 0.26)
    _land(picture, _wave(rng, side, 0.50, 0.03, 0.8), (126, 200, 92))
    _land(picture, _wave(rng, side, 0.64, 0.02, 1.1), (96, 178, 70))
    _dots(picture, rng, 9, (250, 240, 130), 0.72, 0.98, 0.009)
    return picture


def _forest(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (150, 190, 160)), (0.7, (196, 216, 178)), (1, (196, 216, 178))], side)
    pen = ImageDraw.Draw(picture)
    for depth, colour in ((0.0, (58, 120, 84)), (1.0, (30, 88, 54))):
        for column in range(7):
            x = (column + rng.uniform(-0.2, 0.2) + 0.5 * depth) / 6 * side
            top, half = rng.uniform(0.02, 0.24) * side, rng.uniform(0.09, 0.13) * side
            pen.polygon([(x, top), (x - half, 0.80 * side), (x + half, 0.80 * side)], fill=colour)
    _land(picture, _wave(rng, side, 0.78, 0.015, 1.0), (74, 110, 52))
    return picture


def _desert(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (250, 208, 140)), (0.55, (254, 234, 194)), (1, (254, 234, 194))], side)
    for height, colour in ((0.52, (232, 172, 98)), (0.64, (218, 150, 76)), (0.80, (202, 132, 62))):
        _land(picture, _wave(rng, side, height, 0.045, 0.8), colour)
    return picture


def _space(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (10, 6, 26)), (0.5, (34, 14, 62)), (1, (12, 8, 34))], side)
    _dots(picture, rng, 46, (232, 232, 255), 0.0, 1.0, 0.005)
    pen = ImageDraw.Draw(picture)
    x, y, r = (
        (0.14 if rng.random() < 0.5 else 0.86) * side,
        rng.uniform(0.1, 0.25) * side,
        rng.uniform(0.07, 0.11) * side,
    )
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(206, 126, 84))
    pen.ellipse((x - 1.8 * r, y - 0.3 * r, x + 1.8 * r, y + 0.3 * r), outline=(238, 206, 154), width=max(1, side // 96))
    return picture


def _city(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (176, 204, 228)), (0.8, (228, 232, 236)), (1, (228, 232, 236))], side)
    pen = ImageDraw.Draw(picture)
    x = -0.02
    while x < 1:
        width, top = rng.uniform(0.12, 0.2), rng.uniform(0.08, 0.42)
        shade = int(rng.integers(90, 140))
        pen.rectangle((x * side, top * side, (x + width) * side - 2, 0.84 * side), fill=(shade, shade + 6, shade + 20))
        for wx in np.arange(x + 0.025, x + width - 0.035, 0.05):
            for wy in np.arange(top + 0.04, 0.76, 0.085):
                pen.rectangle((wx * side, wy * side, (wx + 0.025) * side, (wy + 0.04) * side), fill=(250, 228, 150))
        x += width
    pen.rectangle((0, 0.84 * side, side, side), fill=(78, 80, 88))
    for dash in range(4):
        pen.rectangle(
            ((dash * 0.27 + 0.04) * side, 0.92 * side, (dash * 0.27 + 0.16) * side, 0.94 * side), fill=(236, 232, 200)
        )
    return picture


def _sunset(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (94, 46, 122)), (0.35, (222, 88, 94)), (0.66, (255, 178, 84)), (1, (255, 178, 84))], side)
    x, r = rng.uniform(0.2, 0.8) * side, 0.13 * side
    ImageDraw.Draw(picture).ellipse((x - r, 0.64 * side - r, x + r, 0.64 * side + r), fill=(255, 236, 150))
    _land(picture, _wave(rng, side, 0.68, 0.012, 1.2), (92, 44, 74))
    return picture


def _sky(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (72, 158, 238)), (1, (176, 222, 252))], side)
    _clouds(picture, rng, 2, 0.08, 0.3)
    _clouds(picture, rng, 3, 0.66, 0.94)
    return picture.filter(ImageFilter.GaussianBlur(side / 160))


def _mountains(rng: np.random.Generator, side: int) -> Image.Image:
    picture = _gradient([(0, (132, 190, 236)), (0.7, (222, 236, 246)), (1, (222, 236, 246))], side)
    pen = ImageDraw.Draw(picture)
    for centre, top, colour in (
        (0.22, 0.22, (120, 128, 150)),
        (0.80, 0.16, (108, 116, 140)),
        (0.52, 0.34, (92, 100, 124)),
    ):
        x, y = (centre + rng.uniform(-0.06, 0.06)) * side, (top + rng.uniform(-0.04, 0.04)) * side
        half, foot = 0.40 * side, 0.84 * side
        pen.polygon([(x, y), (x - half, foot), (x + half, foot)], fill=colour)
        cap = 0.24
        pen.polygon(
            [
                (x, y),
                (x - half * cap, y + (foot - y) * cap),
                (x, y + (foot - y) * cap * 0.7),
                (x + half * cap, y + (foot - y) * cap),
            ],
            fill=(246, 250, 254),
        )
    _land(picture, _wave(rng, side, 0.78, 0.02, 0.9), (104, 156, 84))
    return picture
