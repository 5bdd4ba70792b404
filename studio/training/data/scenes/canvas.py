"""What places are drawn with: flat coloured areas on a picture of twice the size, under the light of a time of day.

Everything is in fractions of the side, x to the right and y down. Colours are those of daylight; the canvas turns them into what is seen at
its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
Point = tuple[float, float]
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class Light:
    """Seen colour = daylight colour * ``factor`` * (1 - haze_share) + ``haze`` * haze_share, channels 0..255; ``sky`` are the colours of
    the sky from its top to the horizon."""

    factor: Colour
    haze: Colour
    haze_share: float
    sky: tuple[Colour, ...]

    def on(self, colour: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Colours (..., 3) in this light."""
        factor, haze = np.array(self.factor, np.float32), np.array(self.haze, np.float32)
        seen: npt.NDArray[np.float32] = colour * (factor * (1 - self.haze_share)) + haze * self.haze_share
        return seen

    def softened(self) -> Light:
        """The light on things, less strong than on the land, so that their own colours can still be named."""
        red, green, blue = (1 + 0.4 * (value - 1) for value in self.factor)
        return Light((red, green, blue), self.haze, 0.4 * self.haze_share, self.sky)


LIGHTS: dict[str, Light] = {
    "night": Light((0.26, 0.34, 0.56), (20, 30, 80), 0.12, ((8, 12, 44), (26, 38, 92), (52, 64, 122))),
    "sunset": Light((0.72, 0.44, 0.42), (255, 120, 50), 0.10, ((88, 44, 120), (222, 88, 94), (255, 178, 84))),
    "dawn": Light((0.84, 0.76, 0.90), (255, 206, 220), 0.30, ((124, 130, 204), (228, 158, 192), (252, 206, 180))),
}


class Canvas:
    """A picture under way; ``rng`` makes every drawing of a place a little different."""

    def __init__(self, rng: np.random.Generator, side: int, time: str) -> None:
        self.rng = rng
        self.time = time
        self._side = side
        self._edge = side * _SUPERSAMPLE
        self._image = Image.new("RGB", (self._edge, self._edge))
        self._pen = ImageDraw.Draw(self._image)

    def finished(self, blur: float = 0.0) -> Image.Image:
        """The picture at its size, its edges smooth; ``blur`` is a radius as a fraction of the side."""
        if blur:
            self._image = self._image.filter(ImageFilter.GaussianBlur(blur * self._edge))
        return self._image.reduce(_SUPERSAMPLE)

    def gradient(self, colours: Sequence[Colour], bottom: float) -> None:
        """A vertical ramp through ``colours`` from the top to ``bottom``, and the last colour below; never lit."""
        self._image.paste(ramp(colours, self._edge, bottom))

    def sky(self, day: Sequence[Colour], horizon: float) -> None:
        """The sky down to ``horizon``: ``day``'s ramp, or the time's, with stars at night and the sun at sunset and dawn."""
        if not self.time:
            self.gradient(day, horizon)
            return
        self.gradient(LIGHTS[self.time].sky, horizon)
        if self.time == "night":
            self.dots(30, (246, 242, 206), (0.0, horizon), 0.006, lit=False)
            return
        x, radius, colour = self.rng.uniform(0.15, 0.85), 0.12, (255, 238, 150)
        if self.time == "dawn":
            radius, colour = 0.08, (255, 250, 238)
        self.ellipse(x, horizon - radius * 0.45, radius, radius, colour, lit=False)

    def polygon(self, points: Sequence[Point], colour: Colour, *, lit: bool = True) -> None:
        """An area; like every shape below in the time's light unless ``lit`` is false."""
        self._pen.polygon([(x * self._edge, y * self._edge) for x, y in points], fill=self._ink(colour, lit))

    def rectangle(
        self, left: float, top: float, right: float, bottom: float, colour: Colour, *, lit: bool = True
    ) -> None:
        """An upright rectangle."""
        box = (left * self._edge, top * self._edge, right * self._edge, bottom * self._edge)
        self._pen.rectangle(box, fill=self._ink(colour, lit))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, *, lit: bool = True) -> None:
        """A filled ellipse with centre and half axes."""
        self._pen.ellipse(self._box(x, y, rx, ry), fill=self._ink(colour, lit))

    def ring(self, x: float, y: float, rx: float, ry: float, colour: Colour, width: float) -> None:
        """The outline of an ellipse."""
        self._pen.ellipse(self._box(x, y, rx, ry), outline=self._ink(colour, True), width=round(width * self._edge))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Straight pieces from point to point."""
        scaled = [(x * self._edge, y * self._edge) for x, y in points]
        self._pen.line(scaled, fill=self._ink(colour, True), width=max(1, round(width * self._edge)), joint="curve")

    def hills(self, height: float, swing: float, waves: float, colour: Colour) -> None:
        """Everything below a rolling line at about ``height``, ``swing`` up and down, ``waves`` of them across the picture."""
        x = np.linspace(0, 1, 33)
        first, second = self.rng.random(2)
        y = height + swing * (
            np.sin(2 * np.pi * (waves * x + first)) + 0.3 * np.sin(2 * np.pi * (2.7 * waves * x + second))
        )
        self.polygon([(0.0, 1.0), *zip(x.tolist(), y.tolist(), strict=True), (1.0, 1.0)], colour)

    def dots(self, count: int, colour: Colour, rows: tuple[float, float], radius: float, *, lit: bool = True) -> None:
        """``count`` discs of about ``radius`` anywhere between two heights."""
        top, bottom = rows
        for x, y, size in self.rng.random((count, 3)).tolist():
            r = radius * (0.5 + size)
            self.ellipse(x, top + y * (bottom - top), r, r, colour, lit=lit)

    def clouds(self, count: int, rows: tuple[float, float], colour: Colour = (250, 252, 255)) -> None:
        """``count`` heaps of discs anywhere between two heights."""
        for _ in range(count):
            x, y = self.rng.uniform(0.05, 0.95), self.rng.uniform(*rows)
            width = self.rng.uniform(0.10, 0.18)
            for dx, dy, r in ((-0.8, 0.1, 0.45), (0.0, -0.15, 0.62), (0.8, 0.1, 0.5), (0.1, 0.2, 0.6)):
                self.ellipse(x + dx * width, y + dy * width, r * width, r * width, colour)

    def _box(self, x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        edge = self._edge
        return ((x - rx) * edge, (y - ry) * edge, (x + rx) * edge, (y + ry) * edge)

    def _ink(self, colour: Colour, lit: bool) -> tuple[int, int, int]:
        if lit and self.time:
            colour = tuple(LIGHTS[self.time].on(np.array(colour, np.float32)).tolist())
        red, green, blue = (min(255, max(0, round(value))) for value in colour)
        return red, green, blue


def ramp(colours: Sequence[Colour], side: int, bottom: float) -> Image.Image:
    """Square picture: ``colours`` at equal distances from the top to ``bottom`` (a fraction of ``side``), the last one below."""
    y = np.linspace(0, 1 / bottom, side)
    heights = np.linspace(0, 1, len(colours))
    columns = [np.interp(y, heights, [colour[channel] for colour in colours]) for channel in range(3)]
    rows = np.stack(columns, axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows[:, None, :], (side, side, 3))))
