"""The embedded model through the program's own engine: 24 fixed prompts whose combinations it was never trained on, judged.

Fails when the model, the engine or the samplers get worse. The floors lie below what `bench sprout` measured for the model on
512 such prompts, by two standard deviations of a share of so few pictures.
"""

from __future__ import annotations

import contextlib
import math

import pytest

from bench._models import find_model
from bench.scenes.figures import judged, shares
from bench.scenes.painter import Painter
from bench.scenes.prompts import Prompt, held_out_prompts
from bench.sprout import EMBEDDED, JUDGE
from studio.engine.worker_client import WorkerEngine
from studio.training.methods.judge.judge import Judge

PROMPTS = 24
MEASURED = {"object": 0.90, "colour": 0.95}
"""The rows of the model card for single objects."""


def floor(question: str, count: int) -> float:
    """Two standard deviations of a share of ``count`` below the measured one."""
    share = MEASURED[question]
    return share - 2 * math.sqrt(share * (1 - share) / count)


def single_objects() -> list[Prompt]:
    """The first single objects with a colour word among the prompts of the benchmark."""
    singles = (prompt for prompt in held_out_prompts(192) if prompt.group == "single" and prompt.scene.main.colour)
    return [prompt for prompt, _ in zip(singles, range(PROMPTS), strict=False)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_it_paints_the_objects_and_colours_it_is_asked_for() -> None:
    prompts, judge = single_objects(), Judge.load(JUDGE)
    with contextlib.closing(WorkerEngine("cpu")) as engine:
        painter = Painter((engine,), find_model(EMBEDDED))
        pictures = painter.all([prompt.order for prompt in prompts], "held-out prompts")
    found = shares(judged(judge, prompts, pictures), tuple(MEASURED))
    assert {question: figure["n"] for question, figure in found.items()} == dict.fromkeys(MEASURED, PROMPTS)
    worse = {
        question: figure["share"] for question, figure in found.items() if figure["share"] < floor(question, PROMPTS)
    }
    assert worse == {}, f"painted right, of {PROMPTS}: {found}; floors below the measured {MEASURED}"
