"""`bench generate --peers`: its options, and the whole run from them."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench._machine import load
from bench._result import facts
from bench.peers import card_command
from bench.peers.client import ContenderFailed
from bench.peers.contender import CARD_PEERS, COMFYUI, CONTENDERS, STUDIO
from bench.peers.kept import CARDS, PROCESSOR, NotTogether, Result, begun, read, write
from bench.peers.parity import Unequal
from bench.peers.preview import first_preview
from bench.peers.runner import Plan, exact, joined, make_files, measure, measured
from bench.peers.showing import show
from bench.peers.workloads import CARD_WORKLOADS, WORKLOADS
from studio import __version__
from studio.errors import StudioError

ROUNDS = 3
PEERS = tuple(name for name in CONTENDERS if name != STUDIO)
_MEASURING = ("comfyui", "device", "workloads", "contenders", "rounds", "out")
"""Options that say what is measured; each is None where it is not given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that belong to `--peers`."""
    group = parser.add_argument_group("beside other programs")
    group.add_argument(
        "--peers",
        action="store_true",
        help="measure the program beside others that run the same model, instead of its parts",
    )
    group.add_argument("--comfyui", type=_checkout, metavar="PATH", help="a checkout of ComfyUI, to measure it too")
    group.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="cuda: on a graphics card, with workloads and contenders of its own (default: cpu)",
    )
    group.add_argument(
        "--workloads",
        nargs="+",
        choices=(*WORKLOADS, *CARD_WORKLOADS),
        help="what is painted (default: all of the device; G are a card's)",
    )
    group.add_argument(
        "--contenders",
        nargs="+",
        choices=(*PEERS, *CARD_PEERS),
        help="who is measured beside the program (default: all of the device, on the processor float32 only in W1 and W7)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        choices=range(1, 21),
        metavar="N",
        help=f"each runs 2N times (default: {ROUNDS})",
    )
    group.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the result here after every workload (on a card: every round); a later run leaves out what it finds there",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="measure nothing: show, and with --save keep, what --out has written, on the processor or a card",
    )


def misplaced(options: argparse.Namespace) -> str:
    """Which options would be ignored, as a sentence; empty if none would."""
    measuring = " ".join(f"--{name}" for name in _MEASURING if getattr(options, name) is not None)
    if not options.peers:
        given = " ".join(part for part in (measuring, "--report" if options.report else "") if part)
        return f"{given}: only with --peers, beside other programs." if given else ""
    if options.parts:
        return "--parts: not with --peers, which measures the program as a whole."
    if options.report:
        useless = " ".join(part for part in ("--quick" if options.quick else "", measuring) if part)
        return f"--report measures nothing: leave {useless} out." if useless else ""
    return ""


def run(options: argparse.Namespace, page: Callable[[bool], dict[str, Any]]) -> int:
    """Measure, or read `--report`; print JSON and table, keep them with `--save`. `page` measures the first page.

    1 when a figure could not be had or kept (the reason is then on stderr), 2 for options that do not go together.
    """
    names = options.workloads or list(WORKLOADS)
    rounds = 1 if options.quick else options.rounds or ROUNDS
    on_card = options.device == "cuda" or not WORKLOADS.keys() >= {*names}
    broken: Exception | None = None
    try:
        if options.report:
            result = read(options.report, PROCESSOR, *CARDS.values())
        elif on_card:
            result, broken = card_command.measured(options, rounds, versions(None))
        else:
            result, broken = _measured(options, names, rounds, page)
    except NotTogether as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 2
    except (StudioError, OSError) as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 1
    failed = show(result, keep=options.save and broken is None)
    if broken is not None:
        print(f"bench generate: broken off: {broken}", file=sys.stderr)  # last, where it is seen
        return 1
    return failed


def _measured(
    options: argparse.Namespace, names: Sequence[str], rounds: int, page: Callable[[bool], dict[str, Any]]
) -> tuple[Result, Exception | None]:
    """The result, and what broke it off. Raises as `begun`."""
    if problem := _unfit(options):
        raise NotTogether(problem)
    workloads = [WORKLOADS[name] for name in names]
    plan = Plan(
        [each.tiny() for each in workloads] if options.quick else workloads,
        [name for name in options.contenders or PEERS if name != COMFYUI or options.comfyui],
        rounds,
        options.quick,
        options.comfyui,
        sparing=not options.contenders,
    )
    now = {
        **facts(PROCESSOR, quick=plan.quick), "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "versions": versions(options.comfyui),
        "rounds": plan.rounds, "workloads": {},
    }  # fmt: skip
    result = begun(options.out, now)
    try:
        _measure(plan, result, options.out, page)
    except (ContenderFailed, StudioError, OSError) as error:
        return result, error
    return result, None


def _measure(plan: Plan, result: Result, out: Path | None, page: Callable[[bool], dict[str, Any]]) -> None:
    """Add to `result` what it lacks of `plan`, and write it to `out` as it grows.

    Raises `ContenderFailed` when the models cannot be written, `StorageError` and `OSError`; what was measured until then is in `result`.
    """
    found = result["workloads"]
    left = _left(plan, found)

    def keep(**parts: Any) -> None:
        result.update(parts, load_at_end=load(), workloads=dict(sorted(found.items())))
        write(out, result)

    parts = (
        ("first_preview",) if plan.quick else ("first_preview", "exact", "page")
    )  # the last two can be checked by themselves
    missing = [part for part in parts if "error" in result.get(part, {"error": "not measured"})]
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        if left or {"first_preview", "exact"} & {*missing}:
            painted = [workload for each in left for workload in each.workloads]
            beside = [name for each in left for name in each.peers]
            make_files(replace(plan, workloads=painted, peers=beside), Path(folder))
        if "first_preview" in missing:
            keep(first_preview=_part(lambda: first_preview(Path(folder), quick=plan.quick)))
        if "exact" in missing:
            keep(exact=_part(lambda: exact(Path(folder))))
        for each in left:
            for name, fresh in measure(each, Path(folder)).items():
                found[name] = joined(found.get(name, {}), fresh)
            keep()
    if "page" in missing:
        keep(page=_part(lambda: page(plan.quick)))


def _left(plan: Plan, found: Result) -> list[Plan]:
    """Of each workload that lacks peers a plan of it and these alone: who has figures keeps them."""
    left = []
    for workload in plan.workloads:
        there = measured(found.get(workload.name, {}))
        if peers := [name for name in plan.beside(workload) if name not in there]:
            left.append(replace(plan, workloads=[workload], peers=peers))
    return left


def _unfit(options: argparse.Namespace) -> str:
    """What was asked for and cannot be had; empty if nothing was."""
    if COMFYUI in (options.contenders or ()) and not options.comfyui:
        return "--contenders comfyui: say where its checkout is, with --comfyui PATH."
    foreign = [name for name in options.contenders or () if name not in PEERS]
    return f"--contenders {' '.join(foreign)}: only on a graphics card. Here: {', '.join(PEERS)}." if foreign else ""


def _part(measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A figure that does not hold up the others when it cannot be had."""
    try:
        return measured()
    except (StudioError, ContenderFailed, Unequal, OSError, TimeoutError) as error:
        return {"error": str(error)}


def versions(checkout: Path | None) -> dict[str, str]:
    """Of all that is compared."""
    found = {"Latent Studio": __version__, **{name: version(name) for name in ("torch", "diffusers", "transformers")}}
    if checkout is not None:
        file = checkout / "comfyui_version.py"
        match = re.search(r'__version__ = "([\w.]+)"', file.read_text("utf-8")) if file.is_file() else None
        found["ComfyUI"] = match[1] if match else "of an unknown version"
    return found


def _checkout(text: str) -> Path:
    path = Path(text).absolute()
    missing = [name for name in ("nodes.py", "comfy/sd.py") if not (path / name).is_file()]
    if missing:
        raise argparse.ArgumentTypeError(f"{path} is no checkout of ComfyUI: it has no {' and no '.join(missing)}")
    return path
