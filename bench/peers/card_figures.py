"""What the seconds of contenders on a card come to. A workload may be measured in parts, each with contenders of its own."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.peers.contender import CARD_PEERS, PLAIN, STUDIO
from bench.peers.runner import summary
from bench.peers.workloads import Workload

Result = Mapping[str, Any]


@dataclass
class CardRuns:
    """Wall seconds of one contender, run by run; `bare` are those of its model calls alone. `peak` is bytes of the card."""

    wall: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    peak: int | None = None

    def __add__(self, other: CardRuns) -> CardRuns:
        return CardRuns(self.wall + other.wall, self.bare + other.bare, max(self.peak or 0, other.peak or 0) or None)


def rounds_of(found: Result, name: str) -> int:
    """How many rounds of a workload's result `name` has taken part in; 0 when it failed."""
    entry = found.get("contenders", {}).get(name, {})
    return int(entry["wall_seconds_a_run"]["runs"]) // 2 if "wall_seconds_a_run" in entry else 0


def lacking(found: Result, rounds: int, names: Collection[str]) -> list[str]:
    """Those of `names` that have not taken part in `rounds` rounds of a workload."""
    return [name for name in names if rounds_of(found, name) < rounds]


def figures(workload: Workload, before: Result, facts: Mapping[str, Result], part: Result) -> dict[str, Any]:
    """The result of a workload: what `before` holds of it, and a further `part` of rounds taken together.

    `facts` say of the part's contenders how far each is off, or why it failed; the part's `runs` are `CardRuns` as JSON, by name, without those
    who failed. Each of the program's contenders is compared with plain diffusers by the parts that had both, or, where there is none
    (it is then among `apart`), by all.
    """
    parts = [*before.get("parts", []), part]
    entries = dict(before.get("contenders", {}))
    for name, each in facts.items():
        if "error" in each and rounds_of(before, name):
            entries[name] = {**entries[name], "rerun_error": each["error"]}
        else:
            entries[name] = each
    runs = [{name: CardRuns(**each) for name, each in one["runs"].items()} for one in parts]
    ordered = sorted(entries, key=(STUDIO, *CARD_PEERS).index)
    found = {name: _entry(workload, entries[name], _together(runs, name)) for name in ordered}
    well = [name for name in ordered if "error" not in found[name]]
    shared = {name: [each for each in runs if {name, PLAIN} <= each.keys()] for name in well if name != PLAIN}
    return {
        "workload": workload.facts(),
        "rounds": min((rounds_of({"contenders": found}, name) for name in well), default=0),
        "load": [each for one in parts for each in one["load"]],
        "contenders": found,
        "times_as_fast_as_diffusers": {
            name: _faster(each or runs, name) for name, each in shared.items() if PLAIN in well
        },
        "apart": [name for name, each in shared.items() if PLAIN in well and not each],
        "parts": parts,
    }


def _together(runs: Sequence[Mapping[str, CardRuns]], name: str) -> CardRuns:
    return sum((each[name] for each in runs if name in each), CardRuns())


def _faster(runs: Sequence[Mapping[str, CardRuns]], name: str) -> float:
    plain, own = (statistics.median(_together(runs, each).wall) for each in (PLAIN, name))
    return round(plain / own, 3)


def _entry(workload: Workload, facts: Result, runs: CardRuns) -> dict[str, Any]:
    if "error" in facts:
        return dict(facts)
    seconds = statistics.median(runs.wall)
    steps = workload.steps * workload.pictures / workload.batch_size
    found = {
        **facts,
        "wall_seconds_a_run": summary(runs.wall, 1),
        "steps_a_second": round(steps / seconds, 2),
        "picture_steps_a_second": round(workload.steps * workload.pictures / seconds, 2),
        "card_peak_gib": runs.peak and round(runs.peak / 2**30, 2),
    }
    if runs.bare:
        share = 100 * statistics.median(runs.bare) / seconds
        found |= {"model_calls_seconds_a_run": summary(runs.bare, 1), "percent_in_model_calls": round(share, 1)}
    return found
