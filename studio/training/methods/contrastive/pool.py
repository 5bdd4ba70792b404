"""Stages 1 and 2: write right and wrong captions of the training scenes and draw them, once, and keep both as arrays on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from studio.paths import atomic_write
from studio.schema.training import ClipMethod
from studio.training.context import TrainingContext
from studio.training.counter import generator
from studio.training.data.scenes.captions import plain_caption, write_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import draw_scene
from studio.training.data.scenes.swaps import wrong_scene
from studio.training.methods.scratch.text import CompactVocabulary, load_tokenizer, tokenize

CAPTIONS, DRAW = "captions", "draw"
_CHUNK = 64
_TOKENIZED = 4096
"""Captions tokenized at a time."""


@dataclass(frozen=True)
class Pool:
    """Pictures and captions of the training scenes.

    ``pictures`` (n, side, side, 3) uint8; ``captions`` and ``wrong`` (n, captions, length) compact token rows that end within
    ``length - 1``, the latter each wrong in one fact; ``meanings`` (n,): captions can say nothing of one picture that is wrong of another
    with the same number. ``bos`` and ``eos`` are the rows of the tokens that begin and end a caption.
    """

    pictures: npt.NDArray[np.uint8]
    captions: npt.NDArray[np.int32]
    wrong: npt.NDArray[np.int32]
    meanings: npt.NDArray[np.int64]
    vocabulary: CompactVocabulary
    bos: int
    eos: int


def build_pool(context: TrainingContext, atlas: GlyphAtlas) -> Pool:
    """Make the pool, or open it when an earlier sitting completed it. Drawing that was cut off goes on where it was."""
    folder = context.run.path / "pool"
    folder.mkdir(exist_ok=True)
    if not (folder / "captions").exists():
        _write_captions(context, folder)
        atomic_write(folder / "captions", b"")
    if not (folder / "pictures").exists():
        _draw(context, atlas, folder)
        atomic_write(folder / "pictures", b"")
    return open_pool(folder)


def open_pool(folder: Path) -> Pool:
    """The completed pool in ``folder``."""
    ids = {name: np.load(folder / f"{name}.npy") for name in ("captions", "wrong")}
    vocabulary = CompactVocabulary.of(np.concatenate([array.reshape(-1) for array in ids.values()]))
    tokenizer = load_tokenizer()
    ends = np.array([tokenizer.bos_token_id, tokenizer.eos_token_id], dtype=np.int32)
    bos, eos = map(int, vocabulary.compact(ends))
    pictures = np.load(folder / "pictures.npy", mmap_mode="r")
    captions, wrong = (vocabulary.compact(array) for array in ids.values())
    return Pool(pictures, captions, wrong, np.load(folder / "meanings.npy"), vocabulary, bos, eos)


def brought_to(picture: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """A square picture in the size the vision tower sees, resampled as the exported ``CLIPImageProcessor`` does it."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)


def _write_captions(context: TrainingContext, folder: Path) -> None:
    """Right and wrong captions as CLIP token ids, and the number of each scene's meaning."""
    data, seed = context.settings(ClipMethod).data, context.config.seed
    captions: list[str] = []
    wrong: list[str] = []
    plain: list[str] = []
    clock = context.stage(CAPTIONS, 0, data.pictures)
    for index in range(data.pictures):
        scene = draw_scene(seed, index)
        plain.append(plain_caption(scene))
        rng = generator(seed, "contrastive/caption", index)
        captions.extend(write_caption(scene, rng) for _ in range(data.captions))
        rng = generator(seed, "contrastive/wrong", index)
        wrong.extend(write_caption(wrong_scene(scene, rng), rng) for _ in range(data.captions))
        if len(plain) % _CHUNK == 0 or len(plain) == data.pictures:
            clock.tick(len(plain))
    ids = _tokenized(captions + wrong)
    np.save(folder / "captions.npy", ids[: len(captions)].reshape(len(plain), -1, ids.shape[1]))
    np.save(folder / "wrong.npy", ids[len(captions) :].reshape(len(plain), -1, ids.shape[1]))
    np.save(folder / "meanings.npy", np.unique(plain, return_inverse=True)[1])


def _tokenized(texts: list[str]) -> npt.NDArray[np.int32]:
    """CLIP token ids (n, length); ``length`` leaves the longest text room for one word more."""
    tokenizer = load_tokenizer()
    ids = np.concatenate(
        [tokenize(tokenizer, texts[start : start + _TOKENIZED]) for start in range(0, len(texts), _TOKENIZED)]
    )
    longest = int((ids == tokenizer.eos_token_id).argmax(axis=1).max()) + 1
    return ids[:, : longest + 1]


def _draw(context: TrainingContext, atlas: GlyphAtlas, folder: Path) -> None:
    method, seed = context.settings(ClipMethod), context.config.seed
    count, side = method.data.pictures, method.vision.side
    drawn = folder / "drawn.txt"
    start = int(drawn.read_text()) if drawn.exists() else 0
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", mode="r+" if start else "w+", dtype=np.uint8, shape=(count, side, side, 3)
    )
    clock = context.stage(DRAW, start, count)
    for low in range(start, count, _CHUNK):
        high = min(low + _CHUNK, count)
        for index in range(low, high):
            picture = paint_scene(draw_scene(seed, index), atlas, seed, index, method.data.side)
            pictures[index] = brought_to(picture, side)
        if high % (_CHUNK * 64) == 0:
            pictures.flush()
            atomic_write(drawn, str(high).encode())
        clock.tick(high)
    pictures.flush()
