"""Stage 1: draw the judge's pictures once and keep them as a memory-mapped array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from studio.paths import atomic_write
from studio.schema.training import JudgeMethod
from studio.training.context import TrainingContext
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, draw_scene
from studio.training.methods.judge.groups import COUNT_GROUPS, pick_scenes, split

STAGE = "draw"
SHARES = {"single": 0.3, "time": 0.1, "style": 0.2, "pair": 0.28, **dict.fromkeys(COUNT_GROUPS, 0.04)}
"""Of the judge's pictures: far more of the rare sorts than among the scenes that the embedded model learns from."""

_CHUNK = 64


@dataclass(frozen=True)
class Drawn:
    """Scenes and their pictures (n, side, side, 3)."""

    scenes: list[Scene]
    pictures: npt.NDArray[np.uint8]


def training_pool(context: TrainingContext) -> Drawn:
    """The pool of the run: drawn now, opened when an earlier sitting completed it, or gone on with where it was cut off.

    Half of the scenes hold held-out combinations: the judge must know them as well as all others.
    """
    data, seed = context.settings(JudgeMethod).data, context.config.seed
    folder = context.run.path / "pool"
    folder.mkdir(exist_ok=True)
    picks = _picks(folder / "picks.npy", seed, data.pictures)
    scenes = [draw_scene(seed, index, held_out=bool(held_out)) for held_out, index in picks.tolist()]
    _draw(context, scenes, [int(index) for index in picks[:, 1]], folder)
    return Drawn(scenes, np.load(folder / "pictures.npy", mmap_mode="r"))


def draw_unseen(seed: int, count: int, side: int) -> Drawn:
    """``count`` pictures of scenes with held-out combinations, in the shares of the pool."""
    picked, atlas = pick_scenes(seed, split(count, SHARES), held_out=True), GlyphAtlas()
    pictures = np.stack([paint_scene(scene, atlas, seed, index, side) for index, scene in picked])
    return Drawn([scene for _, scene in picked], pictures)


def _picks(file: Path, seed: int, count: int) -> npt.NDArray[np.int64]:
    """(count, 2): whether the scene is one with held-out combinations, and its index."""
    if not file.exists():
        rows = [
            (int(held_out), index)
            for held_out, part in ((False, count - count // 2), (True, count // 2))
            for index, _ in pick_scenes(seed, split(part, SHARES), held_out=held_out)
        ]
        temporary = file.with_suffix(".tmp.npy")
        np.save(temporary, np.array(rows, dtype=np.int64))
        temporary.replace(file)
    picks: npt.NDArray[np.int64] = np.load(file)
    return picks


def _draw(context: TrainingContext, scenes: Sequence[Scene], indices: Sequence[int], folder: Path) -> None:
    side, marker = context.settings(JudgeMethod).data.side, folder / "drawn.txt"
    start = int(marker.read_text()) if marker.exists() else 0
    if start == len(scenes):
        return
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", mode="r+" if start else "w+", dtype=np.uint8, shape=(len(scenes), side, side, 3)
    )
    atlas, clock = GlyphAtlas(), context.stage(STAGE, start, len(scenes))
    for low in range(start, len(scenes), _CHUNK):
        high = min(low + _CHUNK, len(scenes))
        for row in range(low, high):
            pictures[row] = paint_scene(scenes[row], atlas, context.config.seed, indices[row], side)
        if high % (_CHUNK * 16) == 0 or high == len(scenes):
            pictures.flush()
            atomic_write(marker, str(high).encode())
        clock.tick(high)
