"""The sum of a run's events so far, brought up to date by reading only what was added."""

from __future__ import annotations

import math
from typing import Any

from studio.runs.curves import UNUSABLE
from studio.schema.runs import RunSummary
from studio.training.runs import RunFolder, read_lines

SMOOTHING = 0.1
"""Share of the newest step in the smoothed speed."""


class SummaryReader:
    """Follows one run. An unknown kind of event, or one that lacks something, changes nothing."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._state: dict[str, Any] = {}
        self._offset = 0
        self._tells_steps = False
        """Whether the stage tells every step: its speed then is that of the steps, not of the samples painted between them."""

    def read(self) -> RunSummary:
        """The summary as of now."""
        while True:
            lines, reached = read_lines(self._run, self._offset)
            if reached == self._offset:
                break
            self._offset = reached
            for line in lines:
                self._take(line)
        return RunSummary(**self._state, offset=self._offset)

    def _take(self, event: dict[str, Any]) -> None:
        handler = getattr(self, f"_on_{event.get('kind')}", None)
        if handler is None:
            return
        before = dict(self._state)
        try:
            handler(event)
            RunSummary(**self._state)
        except UNUSABLE:
            self._state = before

    def _on_starting(self, event: dict[str, Any]) -> None:
        self._state.update(starting=True, paused=False, ending="", ended=None, message="")

    def _on_stage(self, event: dict[str, Any]) -> None:
        state = {
            "stage": event["stage"],
            "step": event["step"],
            "total": event["total"],
            "per_second": None,
            "eta_s": None,
        }
        if event["stage"] != self._state.get("stage"):
            state["values"] = {}
        self._tells_steps = False
        self._state.update(state, starting=False, paused=False, ending="", ended=None, message="")

    def _on_progress(self, event: dict[str, Any]) -> None:
        names = ("stage", "step", "total") + (() if self._tells_steps else ("per_second", "eta_s"))
        self._state.update({name: event[name] for name in names}, starting=False)
        self._state["values"] = {**self._state.get("values", {}), **event.get("values", {})}

    def _on_step(self, event: dict[str, Any]) -> None:
        rate = 1 / max(event["seconds"], 1e-9)
        known = self._state.get("per_second")
        rate = known + SMOOTHING * (rate - known) if known else rate
        self._state.update(step=event["step"], per_second=rate, starting=False)
        self._tells_steps = True
        if self._state.get("total"):
            self._state["eta_s"] = max(0, self._state["total"] - event["step"]) / rate
        found = {name: event[name] for name in ("loss", "rate", "norm", "memory") if math.isfinite(event[name])}
        self._state["values"] = {**self._state.get("values", {}), **found}

    def _on_validated(self, event: dict[str, Any]) -> None:
        if event["step"] == 0 or self._state.get("first_validation") is None:
            self._state["first_validation"] = event["loss"]
        self._state["validation"] = event["loss"]

    def _on_sample(self, event: dict[str, Any]) -> None:
        self._state["samples"] = self._state.get("samples", 0) + 1

    def _on_command(self, event: dict[str, Any]) -> None:
        if event["name"] in ("paused", "resumed"):
            self._state["paused"] = event["name"] == "paused"

    def _on_note(self, event: dict[str, Any]) -> None:
        self._state["note"] = event["message"]

    def _on_finished(self, event: dict[str, Any]) -> None:
        self._end(event, "finished")
        self._state["model"] = event["model"]

    def _on_stopped(self, event: dict[str, Any]) -> None:
        self._end(event, "stopped")

    def _on_failed(self, event: dict[str, Any]) -> None:
        self._end(event, "failed")
        self._state["message"] = event["message"]

    def _end(self, event: dict[str, Any], ending: str) -> None:
        self._state.update(starting=False, ending=ending, ended=event["time"], eta_s=None, paused=False, message="")
