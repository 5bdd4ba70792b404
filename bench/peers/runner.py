"""Pairs of contenders, one after the other in the order ABBA, and what their seconds come to."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bench._machine import load
from bench.peers.client import THREADS, ContenderFailed, Process
from bench.peers.contender import COMFYUI, CONTENDERS, EXACT, FLOOR, REFERENCE, SLOW, STUDIO
from bench.peers.parity import Proof, Unequal, compare
from bench.peers.workloads import SD15, SINGLE, SPROUT, WORKLOADS, Job, Workload
from studio.paths import REPOSITORY


@dataclass(frozen=True)
class Plan:
    """What is measured: `workloads` by the program beside each of `peers`, 2 * `rounds` runs of both. `quick` takes tiny models.

    `sparing` leaves the float32 peers out of long workloads, where they would take hours to say what they say in the others.
    """

    workloads: Sequence[Workload]
    peers: Sequence[str]
    rounds: int
    quick: bool = False
    checkout: Path | None = None
    sparing: bool = False

    def beside(self, workload: Workload) -> list[str]:
        """The peers of one workload."""
        return [name for name in self.peers if not (self.sparing and workload.long and name in SLOW)]


@dataclass
class Runs:
    """What one contender needed, run by run: processor and wall seconds, and the most bytes its process held."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    models: list[float] = field(default_factory=list)
    """Those of `cpu` in model calls; empty where they are not told apart."""
    peak: int | None = None

    def add(self, answer: dict[str, Any]) -> None:
        """One run, as its process answered."""
        self.cpu.append(round(answer["cpu"], 6))
        self.wall.append(round(answer["wall"], 6))
        if answer["models"] is not None:
            self.models.append(round(answer["models"], 6))
        self.peak = answer["peak_bytes"]

    def __add__(self, other: Runs) -> Runs:
        peak = max(self.peak or 0, other.peak or 0) or None
        return Runs(self.cpu + other.cpu, self.wall + other.wall, self.models + other.models, peak)


def measure(plan: Plan, root: Path) -> dict[str, Any]:
    """Every workload's figures, by name, on the models that `make_files` wrote below `root`.

    A contender that fails has an `error` instead of figures, as has a workload whose reference or program fails; one that cannot take part is
    `skipped`. `runs` has the seconds of each pair, by peer.
    """
    return {workload.name: _Comparison(plan, workload, root).measure() for workload in plan.workloads}


def exact(root: Path) -> dict[str, Any]:
    """How far the program in float32 is from the reference, on the model of the first workload. Raises `ContenderFailed` and `Unequal`."""
    job = next(iter(WORKLOADS.values())).proof()
    proofs = []
    for name in (REFERENCE, EXACT):
        with contextlib.closing(Process(name, root, None)) as process:
            proofs.append(_proof(process, job, root))
    return compare(proofs[1], proofs[0])


def _proof(process: Process, job: Job, root: Path) -> Proof:
    file = root / f"{process.name}.npz"
    answer = process.ask(do="prove", job=asdict(job), out=str(file))
    return Proof.read(answer, file)


def make_files(plan: Plan, root: Path) -> None:
    """The models of all workloads, and the first one for the preview. Raises `ContenderFailed`."""
    names = {SD15[0]} | {name for workload in plan.workloads for name in (*workload.models, *workload.loras) if name}
    if COMFYUI in plan.peers and not plan.quick:
        names.add(SINGLE)
    size = "tiny" if plan.quick else "real"
    command = [sys.executable, "-m", "bench.peers.files", str(root), size, *sorted(names - {SPROUT})]
    environment = {**os.environ, **THREADS}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContenderFailed(f"the models cannot be written: {done.stderr[-400:].strip()}")


class _Comparison:
    """One workload."""

    def __init__(self, plan: Plan, workload: Workload, root: Path) -> None:
        self._plan = plan
        self._workload = workload
        self._peers = plan.beside(workload)
        self._root = root
        self._numbers = count(1)
        self._entries: dict[str, dict[str, Any]] = {}
        self._pairs: dict[str, dict[str, Any]] = {}

    def measure(self) -> dict[str, Any]:
        """Proofs first, then the pairs; the reference's process is also the first peer, where it is one."""
        began = load()
        peers = sorted(self._peers, key=lambda name: name != REFERENCE)
        with contextlib.ExitStack() as stack:
            reference, ours = stack.enter_context(self._process(REFERENCE)), stack.enter_context(self._process(STUDIO))
            try:
                wanted = self._prove(reference)
                facts = compare(self._prove(ours), wanted)
            except (ContenderFailed, Unequal) as error:
                return {"workload": self._workload.facts(), "error": str(error)}
            for name in peers:
                if name != REFERENCE:
                    reference.close()  # its memory is needed
                self._pair(name, reference, ours, wanted)
        self._entries[STUDIO] = facts
        workload = self._workload.facts()
        return {"workload": workload, **figures(workload, self._entries, self._pairs), "load": [began, load()]}

    @contextlib.contextmanager
    def _process(self, name: str) -> Iterator[Process]:
        process = Process(name, self._root, self._plan.checkout)
        try:
            yield process
        finally:
            process.close()

    def _prove(self, process: Process) -> Proof:
        tell(f"{self._workload.name}: {process.name} loads and paints once")
        return _proof(process, self._workload.proof(), self._root)

    def _pair(self, name: str, reference: Process, ours: Process, wanted: Proof) -> None:
        if reason := self._left_out(name):
            self._entries[name] = {"skipped": reason}
            return
        opened = contextlib.nullcontext(reference) if name == REFERENCE else self._process(name)
        with opened as other:
            try:
                facts = compare(wanted if name == REFERENCE else self._prove(other), wanted)
                runs = self._abba(ours, other)
            except (ContenderFailed, Unequal) as error:
                self._entries[name] = {"error": str(error)}
                return
        self._entries[name] = facts
        self._pairs[name] = {each: asdict(seconds) for each, seconds in runs.items()}

    def _left_out(self, name: str) -> str:
        if name == COMFYUI and (self._plan.quick or SPROUT in self._workload.models):
            return "its loader does not know models of these shapes"
        return ""

    def _abba(self, ours: Process, other: Process) -> dict[str, Runs]:
        """The runs of both by name. Both are warm and idle; whoever is not asked sleeps."""
        runs = {ours.name: Runs(), other.name: Runs()}
        for _ in range(self._plan.rounds):
            for process in (ours, other, other, ours):
                jobs = [asdict(job) for job in self._workload.jobs(next(self._numbers))]
                answer = process.ask(do="run", jobs=jobs)
                if process.name != FLOOR and answer["pictures"] != self._workload.pictures:
                    raise ContenderFailed(
                        f"{process.name} made {answer['pictures']} pictures of {self._workload.pictures}"
                    )
                runs[process.name].add(answer)
                tell(
                    f"{self._workload.name}: {process.name} {answer['cpu']:.2f} s of the processor, {answer['wall']:.2f} s, load {load()}"
                )
        return runs


def measured(found: Mapping[str, Any]) -> set[str]:
    """Of one workload's result, the peers that have figures or cannot take part; none when it failed as a whole."""
    return {name for name, entry in found.get("contenders", {}).items() if "error" not in entry}


def joined(before: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """A workload of which more peers were measured. Those of `before` stay as they were, and the program's runs are taken together.

    When the workload failed as a whole this time, `before` stays, with a `rerun_error`.
    """
    if "contenders" not in before:
        return dict(fresh)
    if "error" in fresh:
        return {**before, "rerun_error": fresh["error"]}
    entries = {**before["contenders"], **fresh["contenders"]}
    entries[STUDIO] = {**before["contenders"][STUDIO], **fresh["contenders"][STUDIO]}
    again = figures(fresh["workload"], entries, {**before["runs"], **fresh["runs"]})
    return {"workload": fresh["workload"], **again, "load": [*before["load"], *fresh["load"]]}


def figures(
    workload: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], pairs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The figures of one workload from its runs: `entries` say of each contender how far it is off, or why it has no runs; `pairs` have, by
    peer, the `Runs` of it and of the program as JSON.
    """
    runs = {peer: {name: Runs(**each) for name, each in pair.items()} for peer, pair in pairs.items()}
    own = {STUDIO: sum((pair[STUDIO] for pair in runs.values()), Runs())}
    own |= {peer: pair[peer] for peer, pair in runs.items()}
    ordered = sorted(entries, key=CONTENDERS.index)
    return {
        "contenders": {name: _entry(entries[name], own.get(name), workload["pictures"]) for name in ordered},
        "studio_against": {
            peer: against(runs[peer][STUDIO], runs[peer][peer], is_floor=peer == FLOOR)
            for peer in ordered
            if peer in runs
        },
        "runs": pairs,
    }


def _entry(facts: Mapping[str, Any], runs: Runs | None, pictures: int) -> dict[str, Any]:
    if runs is None:
        return dict(facts)
    if not runs.cpu:
        return {"error": "no peer could be measured beside it"}
    return {
        **{key: value for key, value in facts.items() if key != "error"},
        "cpu_seconds_a_picture": summary(runs.cpu, pictures),
        "wall_seconds_a_picture": summary(runs.wall, pictures),
        "peak_gib": runs.peak and round(runs.peak / 2**30, 2),
        **({"percent_beyond_model_calls": beyond(runs.cpu, runs.models)} if runs.models else {}),
    }


def against(ours: Runs, other: Runs, *, is_floor: bool) -> dict[str, Any]:
    """Medians of one pair's runs: pictures a second as a multiple of the other's, memory as a share of it; of the floor how far we are above it."""
    cpu = statistics.median(other.cpu) / statistics.median(ours.cpu)
    wall = statistics.median(other.wall) / statistics.median(ours.wall)
    if is_floor:
        return {
            "overhead_percent_cpu": round(100 * (1 / cpu - 1), 2),
            "overhead_percent_wall": round(100 * (1 / wall - 1), 2),
        }
    memory = ours.peak / other.peak if ours.peak and other.peak else None
    return {
        "times_as_fast": round(cpu, 3),
        "times_as_fast_wall": round(wall, 3),
        "peak_memory": memory and round(memory, 3),
    }


def beyond(cpu: Sequence[float], models: Sequence[float]) -> float:
    """What runs took beyond their own model calls, in percent of these: the median over the runs."""
    return round(statistics.median(100 * (whole / inside - 1) for whole, inside in zip(cpu, models, strict=True)), 2)


def summary(seconds: Sequence[float], pictures: int) -> dict[str, Any]:
    """Of runs that made `pictures` pictures each: seconds a picture."""
    each = [value / pictures for value in seconds]
    return {
        "median": round(statistics.median(each), 4),
        "min": round(min(each), 4),
        "max": round(max(each), 4),
        "runs": len(each),
    }


def tell(line: str) -> None:
    """How far it is."""
    print(line, file=sys.stderr, flush=True)  # so that a run that is broken off leaves something
