"""Contenders on a graphics card: those of one model loaded at once, asked forward and back, in wall seconds until the card's work is done."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

from bench._machine import load
from bench.peers.card_figures import CardRuns, figures, lacking, rounds_of
from bench.peers.client import PASSIVE, THREADS, ContenderFailed, Process
from bench.peers.contender import COMPILING, REFERENCE, STUDIO
from bench.peers.parity import Proof, Unequal, compare
from bench.peers.runner import tell
from bench.peers.workloads import Workload
from studio.paths import REPOSITORY

PROOF_STEPS = 4
"""A proof shows that all paint the same thing; 20 steps of SDXL in float32 would take longer than what is measured."""


@dataclass(frozen=True)
class CardPlan:
    """What is measured: `workloads` by the program and `peers`, 2 * `rounds` runs of each, on `device`. `quick` takes tiny models."""

    workloads: Sequence[Workload]
    peers: Sequence[str]
    rounds: int
    device: str = "cuda"
    quick: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All who take turns."""
        return (STUDIO, *self.peers)


def make_files(plan: CardPlan, root: Path) -> None:
    """The models of all workloads. Raises `ContenderFailed`, also when the device is not there."""
    names = sorted({name for workload in plan.workloads for name in workload.models})
    command = [sys.executable, "-m", "bench.peers.card_files", str(root), "tiny" if plan.quick else "real"]
    environment = {**os.environ, **(THREADS if plan.device == "cpu" else PASSIVE)}
    tell(f"writing {', '.join(names)}")
    done = subprocess.run(
        [*command, plan.device, *names], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ContenderFailed(f"the models cannot be written: {done.stderr[-400:].strip()}")


def measure(plan: CardPlan, root: Path, found: dict[str, Any], keep: Callable[[], None]) -> None:
    """Add to `found` the figures that every workload lacks, by name, on the models that `make_files` wrote below `root`.

    Who has all rounds is not measured again, but for the program, which takes turns with whoever is left. `keep` is called after every
    round, so that a run that is cut off leaves what it had; what it raises ends the run. A contender that fails has an `error` instead of
    figures, a workload whose reference fails as well; where there were figures already, they stay, and a `rerun_error` says so.
    """
    for _, group in groupby(plan.workloads, key=lambda workload: workload.models):
        _Group(plan, list(group), root, found, keep).measure()


class _Group:
    """The workloads of one model, on processes that load it once."""

    def __init__(
        self, plan: CardPlan, workloads: list[Workload], root: Path, found: dict[str, Any], keep: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._workloads = workloads
        self._root = root
        self._found = found
        self._keep = keep
        self._numbers = count(1)

    def measure(self) -> None:
        """The reference first, which is then let go of: no time is taken of it, and its memory is needed."""
        with contextlib.ExitStack() as stack:
            reference = stack.enter_context(self._process(REFERENCE))
            left = {workload.name: self._left(workload) for workload in self._workloads}
            names = [name for name in self._plan.names if any(name in each for each in left.values())]
            processes = {name: stack.enter_context(self._process(name)) for name in names}
            wanted = {workload.name: self._wanted(reference, workload) for workload in self._workloads}
            reference.close()
            for workload in self._workloads:
                proof = wanted[workload.name]
                if isinstance(proof, Proof):
                    self._rounds(workload, {name: processes[name] for name in left[workload.name]}, proof)
                else:
                    found = self._found.setdefault(workload.name, {"workload": workload.facts(), "rounds": 0})
                    found["rerun_error" if "contenders" in found else "error"] = proof
                self._keep()

    def _left(self, workload: Workload) -> list[str]:
        """Who takes turns: the program, and those who lack rounds."""
        missing = lacking(self._found.get(workload.name, {}), self._plan.rounds, self._plan.names)
        return [name for name in self._plan.names if name == STUDIO or name in missing]

    @contextlib.contextmanager
    def _process(self, name: str) -> Iterator[Process]:
        process = Process(name, self._root, None, self._plan.device)
        try:
            yield process
        finally:
            process.close()

    def _wanted(self, reference: Process, workload: Workload) -> Proof | str:
        """The reference's proof, or why there is none."""
        try:
            return self._prove(reference, workload)[0]
        except ContenderFailed as error:
            return str(error)

    def _prove(self, process: Process, workload: Workload) -> tuple[Proof, dict[str, Any]]:
        """Its proof, and what it answered besides. Afterwards it is warm."""
        tell(f"{workload.name}: {process.name} loads and paints once")
        file = self._root / f"{process.name}.npz"
        proof = workload.proof()
        job = asdict(replace(proof, steps=min(proof.steps, PROOF_STEPS)))
        answer = process.ask(do="prove", job=job, out=str(file))
        return Proof.read(answer, file), answer

    def _facts(self, process: Process, workload: Workload, wanted: Proof) -> dict[str, Any]:
        """How far it is from the reference; `error` if too far, or if it failed."""
        try:
            proof, answer = self._prove(process, workload)
            facts = compare(proof, wanted)
        except (ContenderFailed, Unequal) as error:
            return {"error": str(error)}
        return {**facts, "first_seconds": round(answer["seconds"], 1), "card": answer["card"]}

    def _rounds(self, workload: Workload, processes: dict[str, Process], wanted: Proof) -> None:
        """All load at the same time, then take turns until nobody lacks a round; whoever is not asked sleeps."""
        before, began = self._found.get(workload.name, {}), load()
        missing = lacking(before, self._plan.rounds, processes)
        done = min(rounds_of(before, name) for name in missing)
        with ThreadPoolExecutor(len(processes)) as pool:
            told = pool.map(lambda process: self._facts(process, workload, wanted), processes.values())
            facts = dict(zip(processes, told, strict=True))
        runs = {name: CardRuns() for name in processes}
        order = [(name, kind) for name in processes for kind in _asked(name)]
        for _ in range(self._plan.rounds - done):
            for name, kind in (*order, *reversed(order)):
                if "error" in facts[name]:
                    continue
                try:
                    self._run(workload, processes[name], kind, runs[name])
                except ContenderFailed as error:
                    facts[name] = {"error": str(error)}
            part = {name: asdict(runs[name]) for name in processes if "error" not in facts[name]}
            self._found[workload.name] = figures(workload, before, facts, {"load": [began, load()], "runs": part})
            self._keep()

    def _run(self, workload: Workload, process: Process, kind: str, runs: CardRuns) -> None:
        jobs = [asdict(job) for job in workload.jobs(next(self._numbers))]
        answer = process.ask(do=kind, jobs=jobs)
        tell(f"{workload.name}: {process.name} {kind} {answer['wall']:.3f} s, load {load()}")
        if kind == "bare":
            runs.bare.append(round(answer["wall"], 6))
            return
        if answer["pictures"] != workload.pictures:
            raise ContenderFailed(f"{process.name} made {answer['pictures']} pictures of {workload.pictures}")
        runs.wall.append(round(answer["wall"], 6))
        runs.peak = max(runs.peak or 0, answer["card_peak_bytes"] or 0) or None


def _asked(name: str) -> tuple[str, ...]:
    """What a contender is asked in turn: the program also for its model calls alone."""
    return ("run", "bare") if name in (STUDIO, *COMPILING) else ("run",)
