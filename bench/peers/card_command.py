"""`bench generate --peers --device cuda`: the whole run from its options, in parts if need be."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from bench._machine import load, machine
from bench.peers.card import machine_card
from bench.peers.card_report import conditions, figures, save, table
from bench.peers.card_runner import CardPlan, make_files, measure
from bench.peers.client import ContenderFailed
from bench.peers.contender import CARD_PEERS, STUDIO
from bench.peers.kept import NotTogether, Result, check_same, read
from bench.peers.workloads import CARD_WORKLOADS
from studio.paths import atomic_write

NAMES = {device: f"generate --peers --device {device}" for device in ("cuda", "cpu")}
_SAME = ("device", "quick", "rounds", "versions")
"""What must be equal for two parts to make one result."""


def run(options: argparse.Namespace, versions: dict[str, str]) -> int:
    """Measure what is left to measure, or read `--report`; print JSON and table, keep them with `--save`.

    1 when a figure could not be had, 2 for options that do not go together.
    """
    now = datetime.now(timezone.utc)
    try:
        result = read(options.report, *NAMES.values()) if options.report else _measured(options, versions, now)
    except NotTogether as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 2
    except (ContenderFailed, OSError) as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    print(f"\n{conditions(result)}\n{table(result)}\n{figures(result)}", file=sys.stderr)
    if options.save:
        if result["quick"]:
            print("bench generate: tiny models have no figures to --save", file=sys.stderr)
            return 2
        for path in save(result, text, f"{now:%Y%m%dT%H%M%SZ}"):
            print(f"wrote {path}", file=sys.stderr)
    return int(not all(_complete(found, result["rounds"]) for found in result["workloads"].values()))


def _measured(options: argparse.Namespace, versions: dict[str, str], now: datetime) -> Result:
    plan = _plan(options)
    result: Result = {
        "bench": NAMES[plan.device], "device": plan.device, "quick": plan.quick, "date": f"{now:%Y-%m-%d}", "machine": machine(),
        "card": machine_card() if plan.device == "cuda" else {}, "versions": versions, "rounds": plan.rounds, "workloads": {},
    }  # fmt: skip
    if options.out and options.out.exists():
        result = _resumed(read(options.out, NAMES[plan.device]), result, options.out)
    found = result["workloads"]
    wanted = (STUDIO, *plan.peers)
    left = [each for each in plan.workloads if not _complete(found.get(each.name, {}), plan.rounds, wanted)]

    def keep() -> None:
        result["load_at_end"] = load()
        result["workloads"] = dict(sorted(found.items()))
        if options.out:
            atomic_write(options.out, json.dumps(result, indent=2).encode() + b"\n")

    if left:
        todo = CardPlan(left, plan.peers, plan.rounds, plan.device, plan.quick)
        with tempfile.TemporaryDirectory(prefix="bench-card-") as folder:
            make_files(todo, Path(folder))
            measure(todo, Path(folder), found, keep)
    return result


def _plan(options: argparse.Namespace) -> CardPlan:
    """Raises `NotTogether`."""
    names, peers = options.workloads or list(CARD_WORKLOADS), options.contenders or list(CARD_PEERS)
    if options.device == "cpu" and not options.quick:
        raise NotTogether(
            f"{', '.join(names)}: painted on a graphics card. Add --device cuda, or --quick to see that it runs."
        )
    _refuse("--workloads", names, CARD_WORKLOADS)
    _refuse("--contenders", peers, CARD_PEERS)
    if options.comfyui:
        raise NotTogether("--comfyui is measured on the processor only: leave --device cuda out, or --comfyui.")
    workloads = [CARD_WORKLOADS[name] for name in names]
    if options.quick:
        return CardPlan([each.tiny() for each in workloads], peers, 1, options.device, quick=True)
    return CardPlan(workloads, peers, options.rounds, options.device)


def _refuse(flag: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = tuple(known)
    if foreign := [name for name in names if name not in known]:
        raise NotTogether(f"{flag} {' '.join(foreign)}: not on a graphics card. There: {', '.join(known)}.")


def _resumed(before: Result, now: Result, file: Path) -> Result:
    """The result that was begun, to be gone on with. Drivers may differ, and both are told. Raises `NotTogether` for another card."""
    pairs = {key: (before[key], now[key]) for key in _SAME}
    pairs["card"] = (before["card"].get("name"), now["card"].get("name"))
    check_same(file, pairs)
    drivers = [card["driver_version"] for card in (before["card"], now["card"]) if "driver_version" in card]
    if len(set(drivers)) > 1 and drivers[1] not in drivers[0].split(" and "):
        before["card"]["driver_version"] = " and ".join(drivers)
    return before


def _complete(found: Result, rounds: int, contenders: Iterable[str] = ()) -> bool:
    """Whether all rounds of a workload are there, nobody failed, and nobody is missing."""
    entries = found.get("contenders", {})
    failed = "error" in found or any("error" in entry for entry in entries.values())
    return found.get("rounds") == rounds and not failed and all(name in entries for name in contenders)
