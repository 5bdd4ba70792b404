"""Stage 5: measure the exported pair on drawings of held-out combinations, as anybody who loads it would use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from studio.training.counter import generator
from studio.training.data.scenes.captions import plain_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene, Thing, draw_scene
from studio.training.data.scenes.swaps import SWAPS
from studio.training.data.scenes.vocabulary import OBJECTS

EVALUATION_SEED = 2025
PICTURES, GALLERY = 1_000, 100
"""Held-out scenes measured, and how many of them are searched at a time."""
_BATCH = 50
Vectors = npt.NDArray[np.float32]
Figures = dict[str, float]


@dataclass(frozen=True)
class Question:
    """A drawn scene with its right caption; ``index`` is its number in the evaluation's list of scenes."""

    index: int
    scene: Scene
    caption: str


class Pair:
    """An exported pair, loaded from its folder: texts and pictures to unit vectors."""

    def __init__(self, folder: Path) -> None:
        self._model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def vectors(self, pictures: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Unit vectors (n, d) of at least one picture and (m, d) of at least one text."""
        images = [Image.fromarray(picture) for picture in pictures]
        found = self._model(**self._processor(text=list(texts), images=images, return_tensors="pt", padding=True))
        return found.image_embeds.numpy(), found.text_embeds.numpy()


def measure(folder: Path, atlas: GlyphAtlas, side: int, count: int, progress: Callable[[int], None]) -> Figures:
    """Shares right over ``count`` held-out scenes, drawn at ``side`` pixels; ``progress`` is told how many are done.

    ``image_to_text_r1`` and ``text_to_image_r1``: the best match among ``gallery`` captions or pictures is the right one (guessing: one in
    ``gallery``). ``object_zero_shot``: of "a fox", "a cat" and so on for every object, the one that is shown alone fits best. ``swap_*``:
    the right caption fits better than one with that fact wrong (guessing: 0.5). Every ``*_pictures`` says how many pictures stand behind it.
    """
    pair, questions = Pair(folder), held_out_questions(count)
    pictures: list[Vectors] = []
    captions: list[Vectors] = []
    for start in range(0, count, _BATCH):
        chunk = questions[start : start + _BATCH]
        drawn = [paint_scene(question.scene, atlas, EVALUATION_SEED, question.index, side) for question in chunk]
        found = pair.vectors(drawn, [question.caption for question in chunk])
        pictures.append(found[0])
        captions.append(found[1])
        progress(start + len(chunk))
    shown, told = np.concatenate(pictures), np.concatenate(captions)
    blank = np.zeros((side, side, 3), dtype=np.uint8)

    def read(texts: Sequence[str]) -> Vectors:
        return np.concatenate(
            [pair.vectors([blank], texts[start : start + _BATCH])[1] for start in range(0, len(texts), _BATCH)]
        )

    return {
        "held_out_pictures": count,
        **retrieval(shown, told, min(GALLERY, count)),
        **zero_shot(questions, shown, read),
        **swap_test(questions, shown, told, read),
    }


def figures_table(figures: Figures) -> str:
    """The figures as a Markdown table for a model card; shares with three digits."""
    written = {name: f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for name, value in figures.items()}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in written.items())])


def held_out_questions(count: int) -> list[Question]:
    """The first ``count`` held-out scenes whose plain captions are all different."""
    questions: dict[str, Question] = {}
    index = 0
    while len(questions) < count:
        scene = draw_scene(EVALUATION_SEED, index, held_out=True)
        caption = plain_caption(scene)
        questions.setdefault(caption, Question(index, scene, caption))
        index += 1
    return list(questions.values())


def retrieval(pictures: Vectors, captions: Vectors, gallery: int) -> Figures:
    """Recall at 1 both ways, averaged over consecutive galleries; rows that fill no gallery are left out."""
    starts = range(0, len(pictures) - gallery + 1, gallery)
    blocks = [pictures[start : start + gallery] @ captions[start : start + gallery].T for start in starts]
    right = np.arange(gallery)
    return {
        "gallery": gallery,
        "image_to_text_r1": float(np.mean([block.argmax(axis=1) == right for block in blocks])),
        "text_to_image_r1": float(np.mean([block.argmax(axis=0) == right for block in blocks])),
    }


def zero_shot(questions: Sequence[Question], pictures: Vectors, read: Callable[[Sequence[str]], Vectors]) -> Figures:
    """Which object is shown, asked of the pictures of a single one."""
    single = [row for row, question in enumerate(questions) if question.scene.partner is None]
    single = [row for row in single if questions[row].scene.count == 1]
    prompts = read([plain_caption(Scene(Thing(kind), named=False)) for kind in OBJECTS])
    answers = (pictures[single] @ prompts.T).argmax(axis=1)
    right = [OBJECTS[answer] == questions[row].scene.main.kind for row, answer in zip(single, answers, strict=True)]
    return {
        "object_zero_shot": float(np.mean(right)),
        "object_choices": len(OBJECTS),
        "object_pictures": len(single),
    }


def swap_test(
    questions: Sequence[Question], pictures: Vectors, captions: Vectors, read: Callable[[Sequence[str]], Vectors]
) -> Figures:
    """For every fact: the share of pictures that fit their caption better than the caption with that fact wrong."""
    figures: Figures = {}
    for name, swap in SWAPS.items():
        wrong = {
            row: swapped
            for row, question in enumerate(questions)
            if (swapped := swap(question.scene, generator(EVALUATION_SEED, f"swap/{name}", question.index)))
        }
        if not wrong:
            continue
        rows = list(wrong)
        others = read([plain_caption(scene) for scene in wrong.values()])
        margin = (pictures[rows] * (captions[rows] - others)).sum(axis=1)
        figures |= {f"swap_{name}": float(np.mean(margin > 0)), f"swap_{name}_pictures": len(rows)}
    return figures
