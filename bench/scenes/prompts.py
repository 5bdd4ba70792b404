"""The prompts that a model is measured by: plain captions of drawn scenes whose combinations training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.training.data.scenes.captions import plain_caption
from studio.training.data.scenes.glyphs import GlyphAtlas
from studio.training.data.scenes.paint import paint_scene
from studio.training.data.scenes.scene import Scene
from studio.training.methods.judge.groups import COUNT_GROUPS, group_of, pick_scenes, split
from studio.training.methods.judge.judge import Picture

EVALUATION_SEED = 2024
"""Scenes of this seed are drawn for the evaluation only."""
COUNT = 512
SHARES = {"single": 3 / 8, "pair": 1 / 4, "style": 3 / 16, "time": 1 / 16, **dict.fromkeys(COUNT_GROUPS, 1 / 24)}


@dataclass(frozen=True)
class Prompt:
    """What is asked for; picture and seed follow from ``index``, the number of ``scene`` among those of the evaluation seed."""

    index: int
    scene: Scene

    @property
    def text(self) -> str:
        """The prompt: the plain caption of the scene."""
        return plain_caption(self.scene)

    @property
    def order(self) -> tuple[str, int]:
        """Prompt and seed of its picture."""
        return self.text, self.index

    @property
    def group(self) -> str:
        """Which of the groups of ``SHARES`` the scene belongs to."""
        return group_of(self.scene)


def held_out_prompts(count: int) -> list[Prompt]:
    """``count`` prompts in the order in which their scenes come, in fixed shares of the groups; the same at every call."""
    picked = pick_scenes(EVALUATION_SEED, split(count, SHARES), held_out=True)
    return [Prompt(index, scene) for index, scene in picked]


def true_drawings(prompts: Sequence[Prompt], side: int) -> list[Picture]:
    """The prompts' scenes as the training data's painter draws them: what judge and rules should find everything right in."""
    atlas = GlyphAtlas()
    return [paint_scene(prompt.scene, atlas, EVALUATION_SEED, prompt.index, side) for prompt in prompts]
