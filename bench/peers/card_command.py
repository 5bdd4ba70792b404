"""`bench generate --peers --device cuda`: the whole run from its options, in parts if need be."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench._machine import load
from bench._result import facts
from bench.peers.card import machine_card
from bench.peers.card_figures import lacking
from bench.peers.card_runner import CardPlan, make_files, measure
from bench.peers.client import ContenderFailed
from bench.peers.contender import CARD_PEERS
from bench.peers.kept import CARDS, NotTogether, Result, begun, write
from bench.peers.workloads import CARD_WORKLOADS
from studio.errors import StudioError


def measured(options: argparse.Namespace, rounds: int, versions: dict[str, str]) -> tuple[Result, Exception | None]:
    """The result with what it lacked of what is asked for, and what broke it off. Raises as `kept.begun`."""
    plan = _plan(options, rounds)
    now = {
        **facts(CARDS[plan.device], quick=plan.quick), "device": plan.device, "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "card": machine_card() if plan.device == "cuda" else {}, "versions": versions, "rounds": plan.rounds, "workloads": {},
    }  # fmt: skip
    result = begun(options.out, now)
    found = result["workloads"]
    left = [each for each in plan.workloads if lacking(found.get(each.name, {}), plan.rounds, plan.names)]

    def keep() -> None:
        result["load_at_end"] = load()
        result["workloads"] = dict(sorted(found.items()))
        write(options.out, result)

    if left:
        todo = replace(plan, workloads=left)
        try:
            with tempfile.TemporaryDirectory(prefix="bench-card-") as folder:
                make_files(todo, Path(folder))
                measure(todo, Path(folder), found, keep)
        except (ContenderFailed, StudioError, OSError) as error:
            return result, error
    return result, None


def _plan(options: argparse.Namespace, rounds: int) -> CardPlan:
    """Raises `NotTogether`."""
    names, peers = options.workloads or list(CARD_WORKLOADS), options.contenders or list(CARD_PEERS)
    device = options.device or "cpu"
    if device == "cpu" and not options.quick:
        raise NotTogether(
            f"{', '.join(names)}: painted on a graphics card. Add --device cuda, or --quick to see that it runs."
        )
    _refuse("--workloads", names, CARD_WORKLOADS)
    _refuse("--contenders", peers, CARD_PEERS)
    if options.comfyui:
        raise NotTogether("--comfyui is measured on the processor only: leave --device cuda out, or --comfyui.")
    workloads = [CARD_WORKLOADS[name] for name in names]
    if options.quick:
        workloads = [each.tiny() for each in workloads]
    return CardPlan(workloads, peers, rounds, device, options.quick)


def _refuse(flag: str, names: Iterable[str], known: Iterable[str]) -> None:
    known = tuple(known)
    if foreign := [name for name in names if name not in known]:
        raise NotTogether(f"{flag} {' '.join(foreign)}: not on a graphics card. There: {', '.join(known)}.")
