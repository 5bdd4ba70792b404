"""Paint prompts that training never saw and measure what can be told from pixels: the object's colour and the background.

    python -m studio.training.methods.scratch.evaluate MODEL_DIR --out DIR [--count 96] [--steps 20] [--guidance 5] [--seen]

Writes ``contact_sheet.jpg`` (the first 48 prompts, not picked) and ``figures.json``. The rules are judged too, on true drawings of the same
scenes: a figure means little above the rule's own accuracy. It uses diffusers' own pipeline, so it is independent of the studio's engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from studio.paths import atomic_write
from studio.training.counter import generator
from studio.training.data.scenes.captions import plain_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.places import paint_place, paint_plain
from studio.training.data.scenes.scene import Scene, draw_scene
from studio.training.data.scenes.vocabulary import BACKGROUNDS, COLOURS, PLACES

EVALUATION_SEED = 2024
_BATCH = 16
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """How pictures are painted."""

    count: int = 96
    steps: int = 20
    guidance: float = 5.0
    held_out: bool = True


def main(arguments: list[str] | None = None) -> int:
    """Entry point; prints the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.training.methods.scratch.evaluate",
        description="Measure a model on drawn scenes' prompts.",
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument(
        "--seen", action="store_true", help="prompts of the training distribution instead of held-out ones"
    )
    given = parser.parse_args(arguments)
    options = Options(given.count, given.steps, given.guidance, not given.seen)
    scenes = single_scenes(options)
    pictures = paint_with_model(given.model, [plain_caption(scene) for scene in scenes], options)
    figures = judge(scenes, pictures)
    given.out.mkdir(parents=True, exist_ok=True)
    contact_sheet([plain_caption(scene) for scene in scenes[:48]], pictures[:48]).save(
        given.out / "contact_sheet.jpg", quality=88
    )
    report = {
        "prompts": "held out" if options.held_out else "seen",
        "count": options.count,
        "steps": options.steps,
        "guidance": options.guidance,
        **figures,
    }
    atomic_write(given.out / "figures.json", json.dumps(report, indent=2).encode() + b"\n")
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


def single_scenes(options: Options) -> list[Scene]:
    """The first scenes of the evaluation seed with one object, no style, and a caption that names the background."""
    scenes: list[Scene] = []
    index = 0
    while len(scenes) < options.count:
        scene = draw_scene(EVALUATION_SEED, index, held_out=options.held_out)
        if scene.partner is None and scene.count == 1 and not scene.style and scene.named:
            scenes.append(scene)
        index += 1
    return scenes


def paint_with_model(model: Path, prompts: Sequence[str], options: Options) -> list[Picture]:
    """One picture a prompt, DPM++ 2M; picture i has seed i."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Picture] = []
    for start in range(0, len(prompts), _BATCH):
        chunk = list(prompts[start : start + _BATCH])
        generators = [torch.Generator().manual_seed(start + offset) for offset in range(len(chunk))]
        result: Any = pipeline(
            chunk,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=generators,
            output_type="np",
        )
        pictures.extend(np.asarray(picture * 255 + 0.5, dtype=np.uint8) for picture in result.images)
    return pictures


def judge(scenes: Sequence[Scene], pictures: Sequence[Picture]) -> dict[str, float | int]:
    """Shares right by rule, for the painted pictures and for true drawings of the same scenes."""
    atlas, rule = GlyphAtlas(), BackgroundRule(side=pictures[0].shape[0])
    drawn = [
        paint_scene(scene, atlas, EVALUATION_SEED, index, pictures[0].shape[0]) for index, scene in enumerate(scenes)
    ]
    coloured = [i for i, scene in enumerate(scenes) if scene.main.colour]

    def colour_share(candidates: Sequence[Picture]) -> float:
        return float(
            np.mean(
                [
                    object_colour(candidates[i], rule.clean(scenes[i].background)) == scenes[i].main.colour
                    for i in coloured
                ]
            )
        )

    def background_share(candidates: Sequence[Picture]) -> float:
        return float(
            np.mean([rule(picture) == scene.background for picture, scene in zip(candidates, scenes, strict=True)])
        )

    return {
        "colour_right": colour_share(pictures),
        "colour_rule_on_drawings": colour_share(drawn),
        "colour_prompts": len(coloured),
        "background_right": background_share(pictures),
        "background_rule_on_drawings": background_share(drawn),
        "background_prompts": len(scenes),
    }


class BackgroundRule:
    """Names a background by the nearest of drawn examples, compared on the outer cells of an 8x8 reduction in L*a*b*-like space."""

    _EXAMPLES = 24

    def __init__(self, side: int) -> None:
        self._names: list[str] = []
        self._features: list[npt.NDArray[np.float64]] = []
        self._clean: dict[str, Picture] = {}
        for name in [*BACKGROUNDS, *(place.name for place in PLACES)]:
            for example in range(self._EXAMPLES):
                rng = generator(EVALUATION_SEED, f"rule/{name}", example)
                picture = (
                    paint_plain(BACKGROUNDS[name], rng, side) if name in BACKGROUNDS else paint_place(name, rng, side)
                )
                self._names.append(name)
                self._features.append(self._feature(np.asarray(picture)))
                self._clean.setdefault(name, np.asarray(picture))

    def __call__(self, picture: Picture) -> str:
        distances = np.abs(np.stack(self._features) - self._feature(picture)).mean(axis=1)
        return self._names[int(distances.argmin())]

    def clean(self, name: str) -> Picture:
        """An example of the background without an object."""
        return self._clean[name]

    @staticmethod
    def _feature(picture: Picture) -> npt.NDArray[np.float64]:
        small = np.asarray(Image.fromarray(picture).resize((8, 8), Image.Resampling.BOX))
        keep = np.ones((8, 8), dtype=bool)
        keep[1:, 2:6] = False
        return _lab(small[keep]).reshape(-1)


def object_colour(picture: Picture, background: Picture) -> str:
    """The named colour that most pixels of the middle have, of those unlike the background at the same place."""
    edge = picture.shape[0] // 5
    middle = slice(edge, -edge)
    pixels, behind = _lab(picture[middle, middle].reshape(-1, 3)), _lab(background[middle, middle].reshape(-1, 3))
    pixels = pixels[np.linalg.norm(pixels - behind, axis=1) > 22]
    if len(pixels) < 40:
        return ""
    names, tones = _tones()
    nearest = np.linalg.norm(pixels[:, None] - tones[None], axis=-1).argmin(axis=1)
    counts = dict.fromkeys(COLOURS, 0)
    for index, count in zip(*np.unique(nearest, return_counts=True), strict=True):
        counts[names[index]] += int(count)
    return max(counts, key=lambda name: counts[name])


def contact_sheet(captions: Sequence[str], pictures: Sequence[Picture], columns: int = 8) -> Image.Image:
    """Pictures in rows with their prompts below."""
    side, text = pictures[0].shape[0], 30
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 6), rows * (side + text)), (24, 26, 30))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for index, (caption, picture) in enumerate(zip(captions, pictures, strict=True)):
        x, y = (index % columns) * (side + 6) + 3, (index // columns) * (side + text)
        sheet.paste(Image.fromarray(picture), (x, y))
        pen.multiline_text((x, y + side + 2), _wrapped(caption, 24), fill=(220, 224, 230), font=font, spacing=1)
    return sheet


def _tones() -> tuple[list[str], npt.NDArray[np.float64]]:
    names, tones = [], []
    for name, colour in COLOURS.items():
        tone = np.array(colour, dtype=np.float64)
        shades = [tone] if name in ("black", "white") else [tone * 0.62, tone, tone + (255 - tone) * 0.3]
        names.extend([name] * len(shades))
        tones.extend(shades)
    return names, _lab(np.stack(tones))


def _lab(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB values 0..255, last axis 3."""
    linear = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    xyz = (
        linear
        @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
        / np.array([0.9505, 1.0, 1.089])
    )
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
