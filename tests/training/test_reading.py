"""What the reading stage asks of the text encoder: one class a head, each fact of a scene in its own head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from studio.training.data.scenes.scene import Scene, Thing, draw_scene
from studio.training.data.scenes.vocabulary import OBJECTS
from studio.training.methods.scratch.drawn import HEADS, TOLD, scene_labels
from studio.training.methods.scratch.reading import score

KINDS = {kind.name: kind for kind in OBJECTS}
SCENE = Scene(
    Thing(KINDS["fox"], "red"),
    "forest",
    partner=Thing(KINDS["owl"], "blue"),
    relation="left",
    style="flat",
    time="night",
)


def test_every_label_is_a_class_of_its_head_and_every_class_occurs() -> None:
    labels = np.array([scene_labels(draw_scene(1, index)) for index in range(4000)])
    assert labels.shape[1] == len(HEADS)
    assert (labels >= 0).all() and (labels < np.array(HEADS)).all()
    found = np.array([len(np.unique(column)) for column in labels.T])
    partner = 2
    assert found[0] == HEADS[0] - 1  # a main thing is always named
    assert found[partner] >= HEADS[partner] - 5  # rare enough that a few may be missing
    others = [head for head in range(1, len(HEADS)) if head != partner]
    assert (found[others] == np.array(HEADS)[others]).all()


@pytest.mark.parametrize(
    ("head", "other"),
    [
        (0, replace(SCENE, main=Thing(KINDS["cat"], "red"))),
        (1, replace(SCENE, main=Thing(KINDS["fox"], "green"))),
        (2, replace(SCENE, partner=Thing(KINDS["cat"], "blue"))),
        (3, replace(SCENE, partner=Thing(KINDS["owl"]))),
        (4, replace(SCENE, background="sea")),
        (5, replace(SCENE, count=3)),
        (6, replace(SCENE, size="big")),
        (7, replace(SCENE, style="sticker")),
        (8, replace(SCENE, time="dawn")),
        (9, replace(SCENE, relation="on")),
    ],
)
def test_each_fact_has_its_head(head: int, other: Scene) -> None:
    first, second = scene_labels(SCENE), scene_labels(other)
    assert [index for index in range(len(HEADS)) if first[index] != second[index]] == [head]


def test_what_a_caption_does_not_tell_is_class_nothing() -> None:
    labels = scene_labels(Scene(Thing(KINDS["fox"]), named=False))
    assert labels[1:] == (0,) * (len(HEADS) - 1)


def test_the_score_is_summed_cross_entropy_and_the_share_of_right_words() -> None:
    labels = torch.tensor([scene_labels(SCENE), scene_labels(replace(SCENE, background="sea"))])
    flat = torch.zeros(2, sum(HEADS))
    loss, _ = score(flat, labels, HEADS, TOLD)
    assert float(loss) == pytest.approx(float(np.log(HEADS).sum()), rel=1e-5)
    sure = flat.clone()
    offsets = np.concatenate([[0], np.cumsum(HEADS)[:-1]])
    for row in range(2):
        sure[row, torch.from_numpy(offsets) + labels[row]] = 50.0
    loss, right = score(sure, labels, HEADS, TOLD)
    assert float(loss) < 1e-6 and right == 1.0
    sure[1, int(offsets[4]) + int(labels[1, 4])] = -50.0
    assert score(sure, labels, HEADS, TOLD)[1] == pytest.approx(5 / 6)
