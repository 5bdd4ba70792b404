"""Backgrounds: plain ones with a breath of light, and the drawn places of ``vocabulary.PLACES`` by day and at other times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.errors import TrainingError
from studio.training.data.scenes.canvas import Canvas, Colour, ramp
from studio.training.data.scenes.vocabulary import RGB

_Painter = Callable[[Canvas], None]


def paint_plain(colour: RGB, rng: np.random.Generator, side: int) -> Image.Image:
    """One colour, a little lighter at the top than at the bottom."""
    tone = np.array(colour) + rng.uniform(-4, 4)
    slope = rng.uniform(0, 5)
    return ramp([_channels(tone + slope), _channels(tone - slope)], side, 1.0)


def paint_place(name: str, rng: np.random.Generator, side: int, time: str = "") -> Image.Image:
    """A place by its name in ``PLACES`` at ``time``, a key of ``TIMES`` or empty for daylight.

    Raises ``TrainingError`` for a place that cannot be drawn.
    """
    if name not in _PAINTERS:
        raise TrainingError(f"No place {name!r} can be drawn; known: {', '.join(_PAINTERS)}")
    canvas = Canvas(rng, side, time)
    _PAINTERS[name](canvas)
    return canvas.finished(blur=1 / 160 if name in ("sky", "underwater") else 0.0)


def _channels(values: npt.NDArray[np.float64]) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue


def _beach(canvas: Canvas) -> None:
    canvas.sky([(118, 196, 246), (206, 236, 252)], 0.38)
    canvas.rectangle(0, 0.38, 1, 0.66, (36, 142, 206))
    canvas.hills(0.585, 0.012, 1.5, (232, 246, 250))
    canvas.hills(0.61, 0.015, 1.2, (240, 214, 152))
    canvas.dots(10, (222, 192, 126), (0.68, 0.98), 0.006)


def _sea(canvas: Canvas) -> None:
    canvas.sky([(150, 212, 250), (216, 240, 252)], 0.37)
    for height, colour in (
        (0.38, (40, 126, 200)),
        (0.54, (28, 106, 184)),
        (0.70, (20, 88, 164)),
        (0.85, (14, 70, 142)),
    ):
        canvas.hills(height, 0.018, 3.0, colour)


def _underwater(canvas: Canvas) -> None:
    canvas.gradient([(120, 224, 204), (22, 146, 152), (10, 88, 112)], 0.9)
    for start in canvas.rng.uniform(0.0, 0.9, size=3).tolist():
        canvas.polygon([(start, 0), (start + 0.08, 0), (start - 0.10, 0.9), (start - 0.26, 0.9)], (70, 184, 178))
    canvas.hills(0.88, 0.015, 1.0, (214, 190, 134))
    for x in (0.05, 0.14, 0.86, 0.95):
        x += canvas.rng.uniform(-0.03, 0.03)
        top, phase = canvas.rng.uniform(0.45, 0.66), canvas.rng.random() * 6.3
        y = np.linspace(0.93, top, 9)
        sway = x + 0.018 * np.sin(phase + 14 * y)
        canvas.line(list(zip(sway.tolist(), y.tolist(), strict=True)), (26, 112, 62), 0.028)
    for x, y, size in canvas.rng.random((9, 3)).tolist():
        r = 0.010 + 0.016 * size
        canvas.ring(x, 0.05 + 0.75 * y, r, r, (206, 244, 248), 0.006)


def _snow(canvas: Canvas) -> None:
    canvas.sky([(158, 184, 212), (206, 222, 236)], 0.6)
    canvas.hills(0.58, 0.03, 1.0, (226, 236, 246))
    canvas.hills(0.70, 0.03, 0.8, (246, 250, 254))
    canvas.dots(34, (255, 255, 255), (0.0, 0.7), 0.009)


def _rain(canvas: Canvas) -> None:
    canvas.sky([(108, 118, 134), (168, 176, 188)], 0.66)
    canvas.clouds(4, (0.02, 0.14), (82, 90, 106))
    canvas.hills(0.70, 0.012, 1.0, (96, 116, 106))
    for x, y in canvas.rng.uniform((0.05, 0.80), (0.95, 0.97), size=(3, 2)).tolist():
        canvas.ellipse(x, y, 0.11, 0.02, (152, 172, 190))
    for x, y in canvas.rng.random((46, 2)).tolist():
        canvas.line([(x, y), (x - 0.022, y + 0.075)], (214, 228, 244), 0.007)


def _grass(canvas: Canvas) -> None:
    canvas.sky([(126, 204, 250), (214, 240, 252)], 0.5)
    canvas.clouds(2, (0.08, 0.26))
    canvas.hills(0.50, 0.03, 0.8, (126, 200, 92))
    canvas.hills(0.64, 0.02, 1.1, (96, 178, 70))
    canvas.dots(9, (250, 240, 130), (0.72, 0.98), 0.009)


def _forest(canvas: Canvas) -> None:
    canvas.sky([(176, 216, 206), (214, 232, 200)], 0.62)
    for depth, colour, shade in ((0.0, (70, 136, 96), (58, 118, 84)), (1.0, (36, 100, 62), (28, 82, 50))):
        for column in range(7):
            x = (column + canvas.rng.uniform(-0.2, 0.2) + 0.5 * depth) / 6
            top, half = canvas.rng.uniform(0.02, 0.24) + 0.06 * depth, canvas.rng.uniform(0.09, 0.13)
            canvas.polygon([(x, top), (x - half, 0.80), (x + half, 0.80)], colour)
            canvas.polygon([(x, top), (x + 0.02, 0.80), (x + half, 0.80)], shade)
    canvas.hills(0.78, 0.015, 1.0, (74, 110, 52))


def _desert(canvas: Canvas) -> None:
    canvas.sky([(250, 208, 140), (254, 234, 194)], 0.55)
    for height, colour in ((0.52, (232, 172, 98)), (0.64, (218, 150, 76)), (0.80, (202, 132, 62))):
        canvas.hills(height, 0.045, 0.8, colour)


def _mountains(canvas: Canvas) -> None:
    canvas.sky([(132, 190, 236), (222, 236, 246)], 0.7)
    for centre, top, colour in (
        (0.22, 0.22, (120, 128, 150)),
        (0.80, 0.16, (108, 116, 140)),
        (0.52, 0.34, (92, 100, 124)),
    ):
        x, y = centre + canvas.rng.uniform(-0.06, 0.06), top + canvas.rng.uniform(-0.04, 0.04)
        half, foot, cap = 0.40, 0.84, 0.24
        rise = foot - y
        canvas.polygon([(x, y), (x - half, foot), (x + half, foot)], colour)
        tips = [(x - half * cap, y + rise * cap), (x, y + rise * cap * 0.7), (x + half * cap, y + rise * cap)]
        canvas.polygon([(x, y), *tips], (246, 250, 254))
    canvas.hills(0.78, 0.02, 0.9, (104, 156, 84))


def _city(canvas: Canvas) -> None:
    canvas.sky([(176, 204, 228), (228, 232, 236)], 0.8)
    x = -0.02
    while x < 1:
        width, top = canvas.rng.uniform(0.12, 0.2), canvas.rng.uniform(0.08, 0.42)
        shade = float(canvas.rng.integers(90, 140))
        canvas.rectangle(x, top, x + width - 0.012, 0.84, (shade, shade + 6, shade + 20))
        for wx in np.arange(x + 0.025, x + width - 0.035, 0.05).tolist():
            for wy in np.arange(top + 0.04, 0.76, 0.085).tolist():
                canvas.rectangle(wx, wy, wx + 0.025, wy + 0.04, (250, 228, 150), lit=False)
        x += width
    canvas.rectangle(0, 0.84, 1, 1, (78, 80, 88))
    for dash in range(4):
        canvas.rectangle(dash * 0.27 + 0.04, 0.92, dash * 0.27 + 0.16, 0.94, (236, 232, 200))


def _road(canvas: Canvas) -> None:
    canvas.sky([(140, 206, 248), (220, 240, 250)], 0.42)
    canvas.hills(0.42, 0.02, 0.9, (136, 190, 110))
    canvas.hills(0.50, 0.012, 1.3, (112, 172, 88))
    end = 0.5 + canvas.rng.uniform(-0.05, 0.05)
    canvas.polygon([(end - 0.05, 0.49), (end + 0.05, 0.49), (1.02, 1.0), (-0.02, 1.0)], (96, 98, 106))
    for near in (0.56, 0.66, 0.80, 0.97):
        dash = []
        for y, side in ((near, -1), (near, 1), (0.9 * near, 1), (0.9 * near, -1)):
            closeness = (y - 0.49) / 0.51
            dash.append((end + (0.5 - end) * closeness + side * (0.004 + 0.022 * closeness), y))
        canvas.polygon(dash, (244, 226, 120))


def _room(canvas: Canvas) -> None:
    canvas.gradient([(238, 222, 196), (226, 206, 174)], 0.7)
    canvas.rectangle(0, 0.70, 1, 1, (178, 126, 80))
    for y in (0.78, 0.88):
        canvas.rectangle(0, y, 1, y + 0.008, (150, 102, 62))
    canvas.rectangle(0, 0.68, 1, 0.71, (246, 240, 228))
    left = (0.06 if canvas.rng.random() < 0.5 else 0.62) + canvas.rng.uniform(-0.02, 0.02)
    canvas.rectangle(left, 0.10, left + 0.32, 0.46, (250, 248, 242))
    canvas.rectangle(left + 0.02, 0.12, left + 0.30, 0.44, (150, 212, 250))
    canvas.rectangle(left + 0.15, 0.12, left + 0.17, 0.44, (250, 248, 242))
    canvas.rectangle(left + 0.02, 0.27, left + 0.30, 0.29, (250, 248, 242))
    frame = 0.72 if left < 0.5 else 0.12
    canvas.rectangle(frame, 0.16, frame + 0.16, 0.36, (134, 84, 46))
    canvas.rectangle(frame + 0.02, 0.18, frame + 0.14, 0.34, (150, 196, 150))


def _sky(canvas: Canvas) -> None:
    canvas.sky([(72, 158, 238), (176, 222, 252)], 0.9)
    canvas.clouds(2, (0.08, 0.3))
    canvas.clouds(3, (0.66, 0.94))


def _space(canvas: Canvas) -> None:
    canvas.gradient([(10, 6, 26), (34, 14, 62), (12, 8, 34)], 1.0)
    canvas.dots(46, (232, 232, 255), (0.0, 0.95), 0.005)
    x = canvas.rng.uniform(0.35, 0.65)
    canvas.ellipse(x, 1.62, 0.78, 0.78, (126, 176, 236))
    canvas.ellipse(x, 1.64, 0.78, 0.78, (52, 92, 168))


_PAINTERS: dict[str, _Painter] = {
    "beach": _beach,
    "sea": _sea,
    "underwater": _underwater,
    "snow": _snow,
    "rain": _rain,
    "grass": _grass,
    "forest": _forest,
    "desert": _desert,
    "mountains": _mountains,
    "city": _city,
    "road": _road,
    "room": _room,
    "sky": _sky,
    "space": _space,
}
