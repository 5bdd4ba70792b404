"""Scene -> picture: objects pasted on a plain or drawn background, then the style."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from studio.training.counter import generator
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.places import paint_place, paint_plain
from studio.training.data.scenes.scene import Scene, Thing
from studio.training.data.scenes.vocabulary import BACKGROUNDS, PLACES, SIZES

_GROUND = {place.name: place.ground for place in PLACES}


def paint_scene(scene: Scene, atlas: GlyphAtlas, seed: int, index: int, side: int = 128) -> npt.NDArray[np.uint8]:
    """RGB picture (side, side, 3); everything the scene leaves open is drawn from (seed, index)."""
    rng = generator(seed, "paint", index)
    if scene.in_place:
        canvas = paint_place(scene.background, rng, side)
    else:
        canvas = paint_plain(BACKGROUNDS[scene.background], rng, side)
    for thing, x, y, height in _layout(scene, rng):
        _paste(canvas, thing, atlas, x, y, height, rng, shadow=_GROUND.get(scene.background) is not None)
    return np.asarray(_apply_style(canvas, scene.style), dtype=np.uint8)


def _layout(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, float, float, float]]:
    """(thing, centre x, centre y, height) as fractions of the side, in painting order."""
    ground = _GROUND.get(scene.background)
    if scene.partner is not None:
        return _pair_layout(scene, rng)
    if scene.count > 1:
        return _count_layout(scene, rng)
    low, high = SIZES[scene.size]
    height = rng.uniform(low, high)
    if scene.size == "big":
        spread = 0.02
    elif scene.size == "small":
        spread = 0.16
    else:
        spread = 0.07
    x = 0.5 + rng.uniform(-spread, spread)
    y = 0.5 + rng.uniform(-spread, spread)
    if ground is not None and scene.size != "big":
        y = min(ground + rng.uniform(-0.05, 0.03) - height / 2, 0.97 - height / 2)
    return [(scene.main, x, y, height)]


def _count_layout(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, float, float, float]]:
    rows = {
        2: ((0.27, 0.5), (0.73, 0.5)),
        3: ((0.27, 0.30), (0.73, 0.30), (0.5, 0.73)),
        4: ((0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)),
    }
    height = rng.uniform(0.36, 0.44)
    centres = rows[scene.count]
    shift = rng.uniform(-0.03, 0.03, size=2)
    return [(scene.main, x + shift[0], y + shift[1] + rng.uniform(-0.015, 0.015), height) for x, y in centres]


def _pair_layout(scene: Scene, rng: np.random.Generator) -> list[tuple[Thing, float, float, float]]:
    assert scene.partner is not None
    height = rng.uniform(0.38, 0.45)
    relation = scene.relation
    if relation == "and":
        relation = "left"
    jitter = rng.uniform(-0.03, 0.03, size=4)
    if relation in ("left", "right"):
        first, second = (0.26 + jitter[0], 0.52 + jitter[1]), (0.74 + jitter[2], 0.52 + jitter[3])
    else:
        first, second = (0.5 + jitter[0], 0.26 + jitter[1]), (0.5 + jitter[2], 0.74 + jitter[3])
    if relation in ("right", "below"):
        first, second = second, first
    return [(scene.main, *first, height), (scene.partner, *second, height)]


def _paste(
    canvas: Image.Image,
    thing: Thing,
    atlas: GlyphAtlas,
    x: float,
    y: float,
    height: float,
    rng: np.random.Generator,
    *,
    shadow: bool,
) -> None:
    side = canvas.width
    cutout = atlas.cutout(thing.kind, thing.colour)
    scale = height * side / max(cutout.size)
    size = (max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale)))
    cutout = cutout.resize(size, Image.Resampling.LANCZOS)
    left, top = round(x * side - size[0] / 2), round(y * side - size[1] / 2)
    if shadow:
        veil = Image.new("L", canvas.size)
        foot = top + size[1]
        ImageDraw.Draw(veil).ellipse(
            (left + size[0] * 0.1, foot - side * 0.03, left + size[0] * 0.9, foot + side * 0.03), fill=90
        )
        canvas.paste((20, 20, 30), mask=veil.filter(ImageFilter.GaussianBlur(side / 64)))
    canvas.paste(cutout, (left, top), cutout)


def _apply_style(picture: Image.Image, style: str) -> Image.Image:
    if style == "pixel art":
        cells = picture.width // 4
        return (
            picture.resize((cells, cells), Image.Resampling.BOX)
            .quantize(24)
            .convert("RGB")
            .resize(picture.size, Image.Resampling.NEAREST)
        )
    if style == "black and white":
        return ImageOps.autocontrast(picture.convert("L"), cutoff=1).convert("RGB")
    if style == "pencil sketch":
        grey = picture.convert("L")
        blurred = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(picture.width / 32))
        base = np.asarray(grey, dtype=np.float32)
        dodge = np.clip(base * 255 / (256 - np.asarray(blurred, dtype=np.float32)), 0, 255)
        return Image.fromarray((dodge * 0.9 + base * 0.1).clip(0, 255).astype(np.uint8)).convert("RGB")
    return picture
