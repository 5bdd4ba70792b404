"""Paints the README's first picture, a 4x3 grid, with the embedded model.

    python -m bench.scenes.grid

Twelve prompts as people type them, picture i with seed i, the settings that the model's figures are measured at: no picture is chosen.
"""

from __future__ import annotations

import contextlib

import numpy as np
from PIL import Image

from bench._models import find_model
from bench.scenes.painter import Painter
from bench.sprout import EMBEDDED
from studio.engine.worker_client import WorkerEngine
from studio.paths import REPOSITORY
from studio.training.data.scenes.sheet import contact_sheet
from studio.training.methods.judge.judge import Picture

GRID = REPOSITORY / "docs" / "images" / "sprout-grid.jpg"
PROMPTS = (
    "a fox in the snow",
    "two red hearts",
    "a castle at sunset",
    "a rocket in space",
    "a penguin on a beach",
    "a purple dragon on a yellow background",
    "a cat to the left of a dog",
    "a whale in the sea",
    "pixel art of a strawberry",
    "a watercolor painting of a tree",
    "a green car in a city",
    "a pencil sketch of an owl",
)
COLUMNS = 4
ENLARGED = 2


def main() -> None:
    """Paint and save."""
    with contextlib.closing(WorkerEngine()) as engine:
        painter = Painter((engine,), find_model(EMBEDDED))
        pictures = painter.all([(prompt, seed) for seed, prompt in enumerate(PROMPTS)], "grid")
    contact_sheet(PROMPTS, [_enlarged(picture) for picture in pictures], COLUMNS).save(GRID, quality=90)


def _enlarged(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width * ENLARGED, height * ENLARGED), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
