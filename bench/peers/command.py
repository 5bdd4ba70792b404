"""`bench generate --peers`: its options, and the whole run from them."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench._machine import load, machine
from bench.peers import card_command
from bench.peers.client import ContenderFailed
from bench.peers.contender import CARD_PEERS, COMFYUI, CONTENDERS, STUDIO
from bench.peers.goals import goals
from bench.peers.kept import NotTogether, Result, check_same, read
from bench.peers.parity import Unequal
from bench.peers.preview import first_preview
from bench.peers.report import conditions, figures, save, table
from bench.peers.runner import Plan, exact, make_files, measure
from bench.peers.workloads import CARD_WORKLOADS, WORKLOADS
from studio import __version__
from studio.errors import StudioError
from studio.paths import atomic_write

ROUNDS = 3
PEERS = tuple(name for name in CONTENDERS if name != STUDIO)
NAME = "generate --peers"
_SAME = ("quick", "rounds", "versions")
"""What must be equal, beside the machine, for two parts to make one result."""


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
        default="cpu",
        help="cuda: on a graphics card, with workloads and contenders of its own (default: %(default)s)",
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
        default=ROUNDS,
        help="each runs 2N times (default: %(default)s)",
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
        help="measure nothing: show, and with --save keep, what --out has written",
    )


def run(options: argparse.Namespace, page: Callable[[bool], dict[str, Any]]) -> int:
    """Measure, print JSON and table, keep them with `--save`. `page` measures the first page.

    1 when a figure could not be had, 2 when tiny models' figures were to be kept.
    """
    quick = options.quick
    if quick and options.save:
        print("bench generate: --quick only shows that it runs; it has no figures to --save", file=sys.stderr)
        return 2
    names = options.workloads or list(WORKLOADS)
    if options.device != "cpu" or options.report or not WORKLOADS.keys() >= {*names}:
        return card_command.run(options, versions(None))
    if problem := _unfit(options):
        print(f"bench generate: {problem}", file=sys.stderr)
        return 2
    plan = _plan(options, names)
    now = datetime.now(timezone.utc)
    result: Result = {
        "bench": NAME, "quick": quick, "date": f"{now:%Y-%m-%d}", "machine": machine(), "versions": versions(options.comfyui),
        "rounds": plan.rounds, "workloads": {},
    }  # fmt: skip
    try:
        if options.out and options.out.exists():
            result = _resumed(read(options.out, NAME), result, options.out)
        _measure(plan, result, options.out, page)
    except NotTogether as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 2
    except (ContenderFailed, OSError) as error:
        print(f"bench generate: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2)
    print(text)
    print(f"\n{conditions(result)}\n{goals(result)}\n{table(result)}\n{figures(result)}", file=sys.stderr)
    if options.save:
        for path in save(result, text, f"{now:%Y%m%dT%H%M%SZ}"):
            print(f"wrote {path}", file=sys.stderr)
    return int(incomplete(result))


def _plan(options: argparse.Namespace, names: Sequence[str]) -> Plan:
    workloads = [WORKLOADS[name] for name in names]
    return Plan(
        [each.tiny() for each in workloads] if options.quick else workloads,
        [name for name in options.contenders or PEERS if name != COMFYUI or options.comfyui],
        1 if options.quick else options.rounds,
        options.quick,
        options.comfyui,
        sparing=not options.contenders,
    )


def _measure(plan: Plan, result: Result, out: Path | None, page: Callable[[bool], dict[str, Any]]) -> None:
    """Add to `result` what it lacks of `plan`, and write it to `out` as it grows. Raises `ContenderFailed` and `OSError`."""
    found = result["workloads"]
    left = [each for each in plan.workloads if not {*plan.beside(each)} <= _measured(found.get(each.name, {}))]

    def keep(**parts: Any) -> None:
        result.update(parts, load_at_end=load(), workloads=dict(sorted(found.items())))
        if out:
            atomic_write(out, json.dumps(result, indent=2).encode() + b"\n")

    parts = (
        ("first_preview",) if plan.quick else ("first_preview", "exact", "page")
    )  # the last two can be checked by themselves
    missing = [part for part in parts if "error" in result.get(part, {"error": "not measured"})]
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        if left or {"first_preview", "exact"} & {*missing}:
            make_files(replace(plan, workloads=left), Path(folder))
        if "first_preview" in missing:
            keep(first_preview=_part(lambda: first_preview(Path(folder), quick=plan.quick)))
        if "exact" in missing:
            keep(exact=_part(lambda: exact(Path(folder))))
        for workload in left:
            for name, fresh in measure(replace(plan, workloads=[workload]), Path(folder)).items():
                found[name] = _joined(found.get(name, {}), fresh)
            keep()
    if "page" in missing:
        keep(page=_part(lambda: page(plan.quick)))


def _joined(before: Result, fresh: Result) -> Result:
    """A workload that was measured again, with the peers that were not asked for this time as they were."""
    parts = {
        part: {**before.get(part, {}), **fresh[part]} for part in ("contenders", "studio_against") if part in fresh
    }
    return {**fresh, **parts}


def _measured(found: Result) -> set[str]:
    """Of one workload, the peers that have figures or cannot take part; none when it failed as a whole."""
    return {name for name, entry in found.get("contenders", {}).items() if "error" not in entry}


def _resumed(before: Result, now: Result, file: Path) -> Result:
    """The result that was begun, to be gone on with. Raises `NotTogether` for another machine or other versions."""
    pairs = {key: (before[key], now[key]) for key in _SAME}
    pairs |= {key: (before["machine"][key], now["machine"][key]) for key in now["machine"] if key != "load_at_start"}
    check_same(file, pairs)
    first = before["date"].partition(" ")[0]
    return {**before, "date": first if first == now["date"] else f"{first} to {now['date']}"}


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


def incomplete(result: dict[str, Any]) -> bool:
    """Whether anything that was asked for has an error instead of figures."""
    parts = [result.get("page", {}), result.get("exact", {}), result["first_preview"], *result["workloads"].values()]
    entries = [entry for found in result["workloads"].values() for entry in found.get("contenders", {}).values()]
    return any("error" in each for each in parts + entries)


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
