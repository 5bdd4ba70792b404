"""Scene -> picture: things laid out on a plain background or in a place, in the light of the time of day, then the style."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from studio.training.counter import generator
from studio.training.data.scenes.canvas import LIGHTS
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.layout import Placement, lay_out
from studio.training.data.scenes.places import paint_place, paint_plain
from studio.training.data.scenes.scene import Scene
from studio.training.data.scenes.styles import Parts, apply_style
from studio.training.data.scenes.vocabulary import BACKGROUNDS

_SHADE = 90


def paint_scene(scene: Scene, atlas: GlyphAtlas, seed: int, index: int, side: int = 128) -> npt.NDArray[np.uint8]:
    """RGB picture (side, side, 3); everything the scene leaves open is drawn from (seed, index)."""
    rng = generator(seed, "paint", index)
    if scene.in_place:
        background = paint_place(scene.background, rng, side, scene.time)
    else:
        background = paint_plain(BACKGROUNDS[scene.background], rng, side)
    placements = lay_out(scene, atlas.outline, rng)
    things = Image.new("RGBA", (side, side))
    for placement in placements:
        _put(things, placement, atlas, scene.time)
    parts = Parts(background, _ground_shadow(placements, atlas, side), things, rng)
    return np.asarray(apply_style(parts, scene.style), dtype=np.uint8)


def _put(things: Image.Image, placement: Placement, atlas: GlyphAtlas, time: str) -> None:
    """Paste the placement's cut-out, lit by ``time``."""
    side = things.width
    cutout = atlas.cutout(placement.thing.kind, placement.thing.colour)
    scale = placement.size * side / max(cutout.size)
    size = (max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale)))
    cutout = cutout.resize(size, Image.Resampling.LANCZOS)
    if time:
        pixels = np.asarray(cutout, dtype=np.float32)
        lit = LIGHTS[time].softened().on(pixels[..., :3])
        cutout = Image.fromarray(np.concatenate([lit, pixels[..., 3:]], axis=-1).clip(0, 255).astype(np.uint8))
    left, top = round(placement.x * side - size[0] / 2), round(placement.y * side - size[1] / 2)
    things.alpha_composite(cutout, (max(left, 0), max(top, 0)))


def _ground_shadow(placements: list[Placement], atlas: GlyphAtlas, side: int) -> Image.Image:
    """Soft ellipses at the feet of what stands on the ground."""
    veil = Image.new("L", (side, side))
    standing = [placement for placement in placements if placement.standing]
    for placement in standing:
        outline = atlas.outline(placement.thing.kind)
        half, foot = 0.4 * outline.width * placement.size, placement.y + outline.height * placement.size / 2
        box = (placement.x - half, foot - 0.03, placement.x + half, foot + 0.03)
        left, top, right, bottom = (value * side for value in box)
        ImageDraw.Draw(veil).ellipse((left, top, right, bottom), fill=_SHADE)
    return veil.filter(ImageFilter.GaussianBlur(side / 64)) if standing else veil
