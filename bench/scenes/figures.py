"""From verdicts to figures: which prompts count for which row, shares with intervals, and the table of the model card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.scenes.colour import object_colour
from bench.scenes.prompts import Prompt
from studio.training.methods.judge.groups import COUNT_GROUPS
from studio.training.methods.judge.judge import Judge, Picture
from studio.training.methods.judge.verdict import Share, tally, verdicts

Verdicts = dict[str, bool]
_Z = 1.959964
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Row:
    """One question asked of the prompts of some groups. ``goal`` is the share that the model is meant to reach; 0 where none is set.

    ``even`` takes equally many prompts of each group, so that no answer is right more often than others by its number.
    """

    name: str
    question: str
    groups: tuple[str, ...]
    goal: float = 0.0
    even: bool = False
    judged_by: str = "judge"


ROWS = (
    Row("object, where there is one", "object", ("single",), 0.90),
    Row("both objects, where there are two", "objects", ("pair",), 0.75),
    Row("colour of the object", "colour", ("single",), 0.95, judged_by="rule"),
    Row("background or place", "background", ("single", "pair", *COUNT_GROUPS), 0.95),
    Row("time of day", "time", ("time",)),
    Row("count, 1 to 4", "count", ("single", *COUNT_GROUPS), 0.80, even=True),
    Row("relation: left, right, above, below, on", "relation", ("pair",), 0.80),
    Row("style", "style", ("style",), 0.90),
    Row("size", "size", ("single",)),
)


def judged(judge: Judge, prompts: Sequence[Prompt], pictures: Sequence[Picture]) -> list[Verdicts]:
    """For each picture what is right in it, by the judge; ``colour`` by rule, where a single object of a named colour is asked for."""
    found = []
    for prompt, picture, seen in zip(prompts, pictures, judge.look(pictures), strict=True):
        verdict = verdicts(prompt.scene, seen)
        if prompt.group == "single" and prompt.scene.main.colour:
            verdict["colour"] = object_colour(picture) == prompt.scene.main.colour
        found.append(verdict)
    return found


def table(prompts: Sequence[Prompt], painted: Sequence[Verdicts], drawn: Sequence[Verdicts]) -> list[dict[str, Any]]:
    """The rows that ``prompts`` have something for, each with the same judgement of true drawings of the same scenes beside it."""
    found = []
    for row in ROWS:
        chosen = _prompts_of(row, prompts)
        share = tally(painted[i] for i in chosen).get(row.question)
        if share is not None:
            on_drawings = tally(drawn[i] for i in chosen)[row.question]
            found.append({"name": row.name, **share_figure(share), "drawings": round(on_drawings.value, 4), "goal": row.goal, "by": row.judged_by})  # fmt: skip
    return found


def shares(painted: Sequence[Verdicts], questions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By question, the share right of all pictures that were asked for it."""
    found = tally(painted)
    return {question: share_figure(found[question]) for question in questions if question in found}


def wilson_interval(right: int, count: int, z: float = _Z) -> tuple[float, float]:
    """Interval of a share by Wilson (1927), 95 % for the default ``z``; (0, 1) for nothing.

    With p = right / count and n = count: (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n).
    """
    if count == 0:
        return 0.0, 1.0
    share, square = right / count, z**2 / count
    centre = (share + square / 2) / (1 + square)
    reach = z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def share_figure(share: Share) -> dict[str, Any]:
    """A share as it is printed: with its 95 % interval and the number of pictures behind it."""
    interval = wilson_interval(share.right, share.count)
    return {"share": round(share.value, 4), "interval": [round(end, 4) for end in interval], "n": share.count}


def card_block(result: Mapping[str, Any]) -> str:
    """What the model card says: one ``result`` of the benchmark as Markdown."""
    settings, few = result["settings"], result["few_steps"]
    intro = (
        f"{result['prompts']['count']} held-out prompts, one picture each with a fixed seed: {settings['sampler']}, {settings['schedule']}, "
        f"{settings['steps']} steps, CFG {settings['cfg']:g}, {settings['side']}x{settings['side']}, painted by the program itself. "
        "Last column: what the same judge or pixel rule finds right in true drawings of the same scenes."
    )
    hasty = ", ".join(f"{name} {figure['share']:.2f} (n = {figure['n']})" for name, figure in few.items())
    return "\n".join(
        [
            intro,
            "",
            "| asked for | right | 95 % interval | n | goal | true drawings |",
            "|---|---|---|---|---|---|",
            *map(_card_row, result["rows"]),
            "",
            f"Single objects at {settings['few_steps']} steps, {settings['few_schedule']}: {hasty}.",
            "",
            "| measured | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _card_facts(result).items()),
        ]
    )


def _card_row(row: Mapping[str, Any]) -> str:
    (low, high), goal = row["interval"], row["goal"]
    cells = (
        row["name"], f"{row['share']:.3f}", f"{low:.2f} to {high:.2f}", row["n"], f"{goal:.2f}" if goal else "",
        f"{row['drawings']:.3f} ({row['by']})",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _card_facts(result: Mapping[str, Any]) -> dict[str, str]:
    negative, weight, editing, vae = (result[name] for name in ("negative", "weight", "editing", "vae"))
    return {
        f"VAE, {vae['pictures']} unseen drawings": f"PSNR {vae['psnr_db']:.1f} dB",
        **{
            f"seconds a picture, {steps} steps, batch 1, {result['machine']['cores']} cores": f"{seconds['median']:.2f}"
            for steps, seconds in result["seconds"].items()
        },
        **{
            f"CFG {scale}": ", ".join(f"{name} {each['share']:.2f} (n = {each['n']})" for name, each in figures.items())
            for scale, figures in result["guidance"].items()
        },
        **{
            size: ", ".join(f"{name} {each['share']:.2f} (n = {each['n']})" for name, each in figures.items())
            for size, figures in result["sizes"].items()
        },
        "an object's colour put into the negative prompt": f"covers {negative['covered_with']:.3f} of the picture instead of "
        f"{negative['covered_without']:.3f} ({negative['covered_with_another']:.3f} with another colour there); "
        f"less than with the other in {_of(negative['lowered'])}",
        "`(red:w)`, mean a* of the picture": ", ".join(f"{mean:.1f} at {w}" for w, mean in weight["redness"].items())
        + f"; more at the highest than at the lowest weight in {_of(weight['raised'])}",
        "`[red:green:when]`, mean a*": ", ".join(f"{mean:.1f} at {when}" for when, mean in editing["redness"].items())
        + f"; more with the latest than with the earliest change in {_of(editing['raised'])}",
    }


def _of(figure: Mapping[str, Any]) -> str:
    return f"{figure['share']:.2f} of {figure['n']}"


def _prompts_of(row: Row, prompts: Sequence[Prompt]) -> list[int]:
    groups = {group: [i for i, prompt in enumerate(prompts) if prompt.group == group] for group in row.groups}
    most = min(map(len, groups.values())) if row.even else len(prompts)
    return [i for members in groups.values() for i in members[:most]]
